//! `linux.resources` as files and values of cgroup v2: pure. What the spec says in v1's words is converted as runc
//! does.
//!
//! Zero means "not set" where runc takes it so (see `v1/limits`). What cgroup v2 does not have is refused by name.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use crate::cgroup::Error;

/// What a Go client makes of an unset swappiness: -1 in an unsigned field.
const UNSET_SWAPPINESS: u64 = u64::MAX;
/// The kernel's default of both.
pub(super) const NO_QUOTA: &str = "max 100000";

/// One file and what is written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Setting {
    pub file: String,
    pub value: String,
    /// The spec's name for it.
    pub field: &'static str,
    /// What to do where the kernel has no such file.
    pub absent: Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) enum Absent {
    /// It is an error.
    Refuse,
    /// The kernel without that file does what the value asks for.
    Pass,
    /// Another file and value say the same.
    Instead(&'static str, String),
}

impl Setting {
    fn new(file: impl Into<String>, value: impl ToString, field: &'static str) -> Self {
        Self {
            file: file.into(),
            value: value.to_string(),
            field,
            absent: Absent::Refuse,
        }
    }

    fn or(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }

    /// The controller whose file it is.
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// All that `resources` asks for, devices excepted, in the order in which it is written; `quota_now` is what cpu.max
/// says.
pub(in crate::cgroup) fn settings(resources: &LinuxResources, quota_now: &str) -> Result<Vec<Setting>, Error> {
    let mut list = Vec::new();
    if let Some(cpu) = resources.cpu() {
        set_cpu(&mut list, cpu, quota_now)?;
    }
    if let Some(memory) = resources.memory() {
        set_memory(&mut list, memory)?;
    }
    if let Some(limit) = resources
        .pids()
        .as_ref()
        .map(|pids| pids.limit())
        .filter(|limit| *limit != 0)
    {
        list.push(Setting::new("pids.max", max(limit), "resources.pids.limit"));
    }
    if let Some(io) = resources.block_io() {
        set_io(&mut list, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        const FIELD: &str = "resources.hugepageLimits";
        let size = limit.page_size();
        // It becomes part of a file's name.
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(value(
                "resources.hugepageLimits.pageSize",
                size,
                "it is a number and KB, MB or GB",
            ));
        }
        let bytes = limit.limit();
        list.push(Setting::new(format!("hugetlb.{size}.max"), bytes, FIELD));
        // Reservations as well: a program that cannot be given its pages learns it from mmap, not by SIGBUS.
        list.push(Setting::new(format!("hugetlb.{size}.rsvd.max"), bytes, FIELD).or(Absent::Pass));
    }
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_unstable_by_key(|(device, _)| *device);
    for (device, limit) in devices {
        let mut line = device.clone();
        for (name, number) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            line += &number.map_or_else(String::new, |number| format!(" {name}={number}"));
        }
        list.push(Setting::new("rdma.max", line, "resources.rdma"));
    }
    refuse_network(resources)?;
    set_unified(&mut list, resources)?;
    contradictions(&list)?;
    Ok(list)
}

fn value(setting: &'static str, value: impl ToString, fault: &'static str) -> Error {
    Error::Value {
        setting,
        value: value.to_string(),
        fault,
    }
}

/// A negative limit is none.
fn max(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

/// Shares of v1 as a weight of v2: a curve through the lowest, the usual (1024 → 100) and the highest value of both, as
/// runc has it since 1.3.2 and the kubelet since 1.35. The straight line that was used before made 1024 shares a weight
/// of 39, less than anything on the host that has no weight set.
pub(in crate::cgroup) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn set_cpu(list: &mut Vec<Setting>, cpu: &LinuxCpu, quota_now: &str) -> Result<(), Error> {
    for (field, given) in [
        (
            "resources.cpu.realtimePeriod",
            cpu.realtime_period().is_some_and(|value| value != 0),
        ),
        (
            "resources.cpu.realtimeRuntime",
            cpu.realtime_runtime().is_some_and(|value| value != 0),
        ),
    ] {
        refuse(field, given)?;
    }
    if let Some(idle) = cpu.idle() {
        list.push(Setting::new("cpu.idle", idle, "resources.cpu.idle"));
    }
    match cpu.shares() {
        // While a cgroup is idle its weight cannot be set.
        _ if cpu.idle().is_some_and(|idle| idle != 0) => {}
        None | Some(0) => {}
        Some(shares @ 2..=262_144) => {
            list.push(Setting::new(
                "cpu.weight",
                weight_of_shares(shares),
                "resources.cpu.shares",
            ));
        }
        Some(shares) => return Err(value("resources.cpu.shares", shares, "it is 2 to 262144")),
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        // What is not named stays as it is.
        let mut now = quota_now.split_whitespace();
        let (quota_now, period_now) = (now.next().unwrap_or("max"), now.next().unwrap_or("100000"));
        let quota = quota.map_or_else(|| quota_now.to_owned(), max);
        let period = period.map_or_else(|| period_now.to_owned(), |period| period.to_string());
        list.push(Setting::new(
            "cpu.max",
            format!("{quota} {period}"),
            "resources.cpu.quota and period",
        ));
    }
    if let Some(burst) = cpu.burst() {
        list.push(Setting::new("cpu.max.burst", burst, "resources.cpu.burst"));
    }
    for (file, cpus, field) in [
        ("cpuset.cpus", cpu.cpus(), "resources.cpu.cpus"),
        ("cpuset.mems", cpu.mems(), "resources.cpu.mems"),
    ] {
        if let Some(cpus) = cpus.as_deref().filter(|cpus| !cpus.is_empty()) {
            list.push(Setting::new(file, cpus, field));
        }
    }
    Ok(())
}

#[allow(deprecated)]
fn set_memory(list: &mut Vec<Setting>, memory: &LinuxMemory) -> Result<(), Error> {
    const SWAP: &str = "resources.memory.swap";
    for (field, given) in [
        (
            "resources.memory.kernel",
            memory.kernel().is_some_and(|limit| limit > 0),
        ),
        (
            "resources.memory.kernelTCP",
            memory.kernel_tcp().is_some_and(|limit| limit > 0),
        ),
        (
            "resources.memory.disableOOMKiller",
            memory.disable_oom_killer() == Some(true),
        ),
        (
            "resources.memory.useHierarchy: false",
            memory.use_hierarchy() == Some(false),
        ),
        (
            "resources.memory.swappiness",
            memory.swappiness().is_some_and(|value| value != UNSET_SWAPPINESS),
        ),
    ] {
        refuse(field, given)?;
    }
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = given(memory.limit());
    // v1 counts memory and swap together, v2 swap alone.
    let swap = match (limit, given(memory.swap())) {
        // Unlimited memory with a limit on swap cannot be meant.
        (Some(..0), None) => Some("max".to_owned()),
        (_, None) => None,
        (_, Some(..0)) => Some("max".to_owned()),
        (None | Some(..0), Some(swap)) => {
            return Err(value(
                SWAP,
                swap,
                "without a memory limit there is nothing to take it from",
            ));
        }
        (Some(limit), Some(swap)) if swap < limit => {
            let fault = "memory and swap together cannot be less than the memory limit";
            return Err(value(SWAP, swap, fault));
        }
        (Some(limit), Some(swap)) => Some((swap - limit).to_string()),
    };
    if let Some(swap) = swap {
        // A kernel that does not count swap has no file, and "0" or "max" is what it does anyway: v1's runc takes it
        // so.
        let absent = if matches!(swap.as_str(), "0" | "max") {
            Absent::Pass
        } else {
            Absent::Refuse
        };
        list.push(Setting::new("memory.swap.max", swap, SWAP).or(absent));
    }
    if let Some(limit) = limit {
        list.push(Setting::new("memory.max", max(limit), "resources.memory.limit"));
    }
    if let Some(reservation) = given(memory.reservation()) {
        list.push(Setting::new(
            "memory.low",
            max(reservation),
            "resources.memory.reservation",
        ));
    }
    Ok(())
}

fn set_io(list: &mut Vec<Setting>, io: &LinuxBlockIo) -> Result<(), Error> {
    const WEIGHT: &str = "resources.blockIO.weight";
    const DEVICE: &str = "resources.blockIO.weightDevice";
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    refuse("resources.blockIO.leafWeight", given(io.leaf_weight()).is_some())?;
    if let Some(weight) = given(io.weight()) {
        check_weight(WEIGHT, weight)?;
        // BFQ's file has v1's range; io.weight is for the cost model.
        let instead = Absent::Instead("io.weight", format!("default {}", weight_of_blkio(weight)));
        list.push(Setting::new("io.bfq.weight", weight, WEIGHT).or(instead));
    }
    for device in io.weight_device().iter().flatten() {
        refuse(
            "resources.blockIO.weightDevice.leafWeight",
            given(device.leaf_weight()).is_some(),
        )?;
        if let Some(weight) = given(device.weight()) {
            check_weight(DEVICE, weight)?;
            let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            let instead = Absent::Instead("io.weight", line(weight_of_blkio(weight)));
            list.push(Setting::new("io.bfq.weight", line(weight.into()), DEVICE).or(instead));
        }
    }
    for (key, devices, field) in [
        (
            "rbps",
            io.throttle_read_bps_device(),
            "resources.blockIO.throttleReadBpsDevice",
        ),
        (
            "wbps",
            io.throttle_write_bps_device(),
            "resources.blockIO.throttleWriteBpsDevice",
        ),
        (
            "riops",
            io.throttle_read_iops_device(),
            "resources.blockIO.throttleReadIOPSDevice",
        ),
        (
            "wiops",
            io.throttle_write_iops_device(),
            "resources.blockIO.throttleWriteIOPSDevice",
        ),
    ] {
        for device in devices.iter().flatten() {
            // 0 takes the limit away on v1.
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push(Setting::new("io.max", line, field));
        }
    }
    Ok(())
}

fn check_weight(field: &'static str, weight: u16) -> Result<(), Error> {
    if (10..=1000).contains(&weight) {
        Ok(())
    } else {
        Err(value(field, weight, "it is 10 to 1000"))
    }
}

/// A weight of v1, 10 to 1000, as one of v2, 1 to 10000.
fn weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn refuse_network(resources: &LinuxResources) -> Result<(), Error> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    refuse(
        "resources.network.classID",
        network.class_id().is_some_and(|id| id != 0),
    )?;
    let priorities = network.priorities().as_ref().is_some_and(|list| !list.is_empty());
    refuse("resources.network.priorities", priorities)
}

fn refuse(field: &'static str, given: bool) -> Result<(), Error> {
    if given {
        return Err(Error::NotOnV2 { field });
    }
    Ok(())
}

/// Files of the cgroup by name; they go last and so overrule what is said in other words.
fn set_unified(list: &mut Vec<Setting>, resources: &LinuxResources) -> Result<(), Error> {
    let mut keys: Vec<_> = resources.unified().iter().flatten().collect();
    keys.sort_unstable();
    for (key, value) in keys {
        let fault = if key.contains('/') || !key.contains('.') || key.contains('\0') {
            "is not the name of a controller's file"
        } else if key.starts_with("cgroup.") && !key.starts_with("cgroup.max.") {
            "is the runtime's own"
        } else if value.contains('\0') {
            "has a value with a NUL in it"
        } else {
            ""
        };
        if !fault.is_empty() {
            return Err(Error::Unified {
                key: key.clone(),
                fault,
            });
        }
        // A file takes one line a write.
        for line in value.lines().filter(|line| !line.is_empty()) {
            list.push(Setting::new(key.as_str(), line, "resources.unified"));
        }
    }
    Ok(())
}

/// What is written last counts: a throttle above the limit would never throttle.
fn contradictions(list: &[Setting]) -> Result<(), Error> {
    let last = |file: &str| -> Option<u64> {
        let found = list.iter().rev().find(|setting| setting.file == file)?;
        found.value.parse().ok()
    };
    match (last("memory.high"), last("memory.max")) {
        (Some(high), Some(max)) if high > max => Err(value(
            "resources.unified memory.high",
            high,
            "it is above the memory limit, where it would do nothing",
        )),
        _ => Ok(()),
    }
}
