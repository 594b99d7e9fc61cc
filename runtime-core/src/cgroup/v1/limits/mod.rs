//! What a container may use: `linux.resources` written into the v1 controllers' files.
//!
//! Zero means "not set" where runc takes it so: shares, quota, period, memory, swap, weights, class id, and pids (whose
//! absence the Go types before runtime-spec 1.3 cannot tell from zero). Everything else that the spec says is written,
//! or refused by name.

mod blkio;
mod cpu;
pub(super) mod cpuset;
mod devices;
mod memory;
mod other;

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

impl V1 {
    /// Refuses what cannot be meant or done here, before anything is touched.
    pub fn check_limits(&self, resources: &LinuxResources) -> Result<(), Error> {
        if let Some(key) = resources.unified().iter().flatten().map(|(key, _)| key).next() {
            return Err(Error::UnifiedOnV1 { key: key.clone() });
        }
        if let Some(cpu) = resources.cpu() {
            cpu::check(cpu)?;
        }
        if let Some(memory) = resources.memory() {
            memory::check(memory)?;
        }
        other::check(resources)?;
        for (controller, setting, _) in wanted(resources) {
            self.controller(controller, setting)?;
        }
        Ok(())
    }

    /// Sets everything but the devices.
    pub(super) fn set_limits(&self, resources: &LinuxResources) -> Result<(), Error> {
        for (controller, setting, set) in wanted(resources) {
            set(self.controller(controller, setting)?, resources)?;
        }
        Ok(())
    }

    /// Lets the container use the devices of the spec's rules and those that every container may use.
    pub(super) fn set_devices(&self, resources: Option<&LinuxResources>) -> Result<(), Error> {
        let part = self.of_controller("devices").ok_or(Error::NoDevices)?;
        let rules = resources
            .and_then(|resources| resources.devices().as_deref())
            .unwrap_or_default();
        devices::set(part, rules)
    }

    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.check_limits(resources)?;
        self.set_limits(resources)
    }

    fn controller(&self, controller: &'static str, setting: &'static str) -> Result<&Directory, Error> {
        self.of_controller(controller)
            .ok_or(Error::NotMounted { controller, setting })
    }
}

type Set = fn(&Directory, &LinuxResources) -> Result<(), Error>;

/// Controller, the spec's name for what is asked of it, and who writes it: for whatever `resources` asks for.
fn wanted(resources: &LinuxResources) -> impl Iterator<Item = (&'static str, &'static str, Set)> {
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let cpu = resources.cpu().as_ref();
    let network = resources.network().as_ref();
    let all: [(bool, &str, &str, Set); 9] = [
        (cpu.is_some_and(cpu::is_set), "cpu", "resources.cpu", cpu::set),
        (
            cpu.is_some_and(cpuset::is_set),
            "cpuset",
            "resources.cpu.cpus and mems",
            cpuset::set,
        ),
        (
            resources.memory().as_ref().is_some_and(memory::is_set),
            "memory",
            "resources.memory",
            memory::set,
        ),
        (
            resources.pids().as_ref().is_some_and(|pids| pids.limit() != 0),
            "pids",
            "resources.pids",
            other::set_pids,
        ),
        (
            resources.block_io().as_ref().is_some_and(blkio::is_set),
            "blkio",
            "resources.blockIO",
            blkio::set,
        ),
        (
            some(resources.hugepage_limits().as_ref().map(Vec::len)),
            "hugetlb",
            "resources.hugepageLimits",
            other::set_hugepages,
        ),
        (
            some(resources.rdma().as_ref().map(|map| map.len())),
            "rdma",
            "resources.rdma",
            other::set_rdma,
        ),
        (
            network.and_then(|network| network.class_id()).is_some_and(|id| id != 0),
            "net_cls",
            "resources.network.classID",
            other::set_class,
        ),
        (
            some(network.and_then(|network| network.priorities().as_ref()).map(Vec::len)),
            "net_prio",
            "resources.network.priorities",
            other::set_priorities,
        ),
    ];
    all.into_iter()
        .filter(|(wanted, ..)| *wanted)
        .map(|(_, controller, setting, set)| (controller, setting, set))
}

/// Writes values of which the kernel refuses some (EINVAL) as long as others have not changed: quota above the old
/// burst, memory above the old memory+swap. Those are tried again after the others, so that the order is right both up
/// and down, whatever was set before.
fn write_dependent(part: &Directory, values: &[(&'static str, String)]) -> Result<(), Error> {
    let mut pending: Vec<&(&'static str, String)> = values.iter().collect();
    while !pending.is_empty() {
        let before = pending.len();
        let mut refused = Vec::new();
        for value in pending {
            match part.try_write(value.0, &value.1) {
                Ok(()) => {}
                Err(Errno::INVAL) => refused.push(value),
                Err(error) => return Err(part.write_error(value.0, &value.1, error)),
            }
        }
        if let Some((file, value)) = refused.first().filter(|_| refused.len() == before) {
            return Err(part.write_error(file, value, Errno::INVAL));
        }
        pending = refused;
    }
    Ok(())
}
