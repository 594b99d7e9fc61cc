//! One container's cgroups: create, join, limits, freeze, kill, statistics, OOM.
//!
//! cgroup v1, hybrid and v2; made by ourselves (the driver cgroupfs) or by systemd as a scope. What a user can see
//! follows runc: on v1 the same path in every hierarchy, the named and, on hybrid hosts, the unified one included;
//! parents that had to be made stay when the container goes.
//!
//! On the way of every container are [`Cgroup::create`], [`Cgroup::join_files`] and [`Cgroup::delete`]: no mount table
//! is read there, files are opened below one fd a hierarchy, and no file is read that need not be.

mod device_rules;
mod directory;
mod error;
mod hierarchy;
mod huge_pages;
mod path;
mod place;
mod processes;
mod remove;
mod stats;
mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

pub use error::Error;
use hierarchy::{Host, host};
pub use hierarchy::{Mode, mode};
use path::CgroupsPath;
pub use stats::{
    Blkio, BlkioEntry, Counter, Cpu, Hugetlb, Io, Keyed, Memory, Pids, Pressure, Rdma, RdmaEntry, Stall, Stats,
    StatsV1, StatsV2,
};
pub use systemd::Error as SystemdError;
pub(crate) use systemd::is_systemd as is_systemd_path;

/// How long systemd has for the end of a scope, whatever the killing took: less than containerd has for a clean-up.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long the undoing of a failed create may take.
const UNDO_LIMIT: Duration = Duration::from_secs(5);
/// How long processes may take to die of SIGKILL: one that waits for a disk or for NFS dies only then.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The cgroups of one container: the same path below every hierarchy. Holds no fd and no lock; it may be shared between
/// threads.
#[derive(Debug, Clone)]
pub struct Cgroup {
    driver: Driver,
    /// The scope, where systemd makes the cgroup.
    unit: Option<systemd::Unit>,
}

/// What a container's cgroup is made with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The limits.
    pub resources: Option<&'a LinuxResources>,
    /// A process that holds the place until init is there: systemd makes no scope without one. See
    /// [`Cgroup::needs_member`].
    pub member: Option<i32>,
    /// What systemd shows of the scope to people.
    pub description: &'a str,
    /// uid and gid that may make cgroups below, on v2: root of the container's user namespace.
    pub delegate_to: Option<(u32, u32)>,
}

/// Who carries the operations out.
#[derive(Debug, Clone)]
enum Driver {
    /// cgroup v1, with or without a unified hierarchy beside it; cgroupfs.
    V1(v1::V1),
    /// cgroup v2 alone.
    V2(v2::V2),
}

/// Where a container is in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `cpu`, `cpuacct`, `name=systemd`…; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted on the host.
    pub mount_point: PathBuf,
    /// The container's cgroup, full path.
    pub directory: PathBuf,
}

/// Tells of processes that the kernel killed for want of memory. Poll [`OomWatch::fd`] for reading, then ask
/// [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    V1(v1::Watch),
    V2(v2::Watch),
}

impl Cgroup {
    /// Makes the cgroups at `path` (as `linux.cgroupsPath` gives it) and sets the limits. Relative paths are below our
    /// own cgroup. What is missing above is made as well, and stays.
    ///
    /// An empty cgroup that is there is used, as runc does.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::AlreadyFrozen`] where the cgroup is in use; [`Error::NotMounted`] and
    /// [`Error::Write`] for a limit that cannot be set; [`Error::Path`] for a path that is none. Nothing new is left
    /// behind then.
    pub fn create(path: &str, request: Request<'_>) -> Result<Self, Error> {
        let cgroup = Self::open(path)?;
        let resources = request.resources;
        if let Some(unit) = &cgroup.unit {
            let member = request.member.ok_or_else(|| Error::NoMember { path: path.into() })?;
            let limits = cgroup.properties(resources, true)?;
            unit.start(request.description, member, limits)?;
        }
        let inhabited = cgroup.unit.is_some();
        let made = match &cgroup.driver {
            Driver::V1(v1) => v1.create(resources, inhabited),
            Driver::V2(v2) => v2
                .create(resources, inhabited)
                .and_then(|()| match request.delegate_to {
                    Some((uid, gid)) => v2.delegate(uid, gid),
                    None => Ok(()),
                }),
        };
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                if cgroup.unit.is_some() {
                    // The error to be told is the first one; an empty scope is systemd's to collect.
                    let _ = cgroup.delete(UNDO_LIMIT);
                }
                Err(error)
            }
        }
    }

    /// Whether systemd makes this cgroup, around a process that has to be there already.
    pub fn needs_member(&self) -> bool {
        self.unit.is_some()
    }

    /// Limits as systemd knows them; refuses what cannot be meant or done.
    fn properties(
        &self,
        resources: Option<&LinuxResources>,
        new: bool,
    ) -> Result<Vec<(&'static str, systemd::Value)>, Error> {
        let Some(resources) = resources else {
            return Ok(Vec::new());
        };
        match &self.driver {
            Driver::V1(v1) => {
                v1.check_limits(resources)?;
                let mut properties = systemd::properties::of_v1(resources);
                if new {
                    let rules = resources.devices().as_deref().unwrap_or_default();
                    properties.extend(systemd::properties::devices(rules)?);
                }
                Ok(properties)
            }
            Driver::V2(v2) if new => Ok(systemd::properties::of_v2(&v2.check_limits(resources)?)),
            Driver::V2(v2) => Ok(systemd::properties::of_v2(&v2.settings_now(resources)?)),
        }
    }

    /// The cgroups at `path`, which may be gone in part or in whole: for clean-up. Touches nothing.
    ///
    /// # Errors
    /// [`Error::Path`], [`Error::OwnCgroup`] for a path that means nothing here.
    pub fn open(path: &str) -> Result<Self, Error> {
        Self::of(host()?, path)
    }

    fn of(host: &Host, path: &str) -> Result<Self, Error> {
        let parsed = CgroupsPath::parse(path)?;
        let driver = match host.mode()? {
            Mode::V2 => Driver::V2(v2::V2::of(host, &parsed)?),
            Mode::V1 | Mode::Hybrid => Driver::V1(v1::V1::of(host, &parsed)?),
        };
        let unit = match parsed {
            CgroupsPath::Systemd(scope) => Some(systemd::Unit::new(scope)),
            CgroupsPath::Absolute(_) | CgroupsPath::Relative(_) => None,
        };
        Ok(Self { driver, unit })
    }

    /// Whether [`Cgroup::create`] would find the cgroup in use; one look at one hierarchy. For whoever writes down that
    /// the cgroup is a container's own before it is made: what is cleaned up by such a note must not be somebody
    /// else's.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn check_free(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.check_free(),
            Driver::V2(v2) => v2.check_free(),
        }
    }

    /// Where the container is, one entry a hierarchy; the unified one comes last.
    pub fn places(&self) -> Vec<Place> {
        match &self.driver {
            Driver::V1(v1) => v1.places(),
            Driver::V2(v2) => v2.places(),
        }
    }

    /// Whether any of the cgroups is there.
    pub fn exists(&self) -> bool {
        match &self.driver {
            Driver::V1(v1) => v1.exists(),
            Driver::V2(v2) => v2.exists(),
        }
    }

    /// The files into which a process writes "0" to place itself (v1 `tasks`), one a hierarchy.
    ///
    /// Moves the writing **thread** alone, so it is for a process that has one. In the unified hierarchy, of a hybrid
    /// host or alone, there is no such file: see [`Cgroup::clone_into`].
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.join_files(),
            Driver::V2(_) => Ok(Vec::new()),
        }
    }

    /// The directory to be given to clone3(2)'s CLONE_INTO_CGROUP: the container's cgroup in the unified hierarchy.
    /// None on a host without one.
    ///
    /// There is no cheap way for a process to move itself there: the first write to `cgroup.procs` after a quiet moment
    /// waits some ten milliseconds for a grace period, and `cgroup.threads` does not cross domains.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.clone_into(),
            Driver::V2(v2) => v2.clone_into(),
        }
    }

    /// Puts a process into the container's cgroup in the unified hierarchy, if there is one, from outside: for what
    /// cannot be forked into it. Slow after a quiet moment, see [`Cgroup::clone_into`].
    ///
    /// Where the container hands controllers on to cgroups that it made, as a systemd of its own does, its own takes no
    /// process any more (cgroups(7), "no internal processes"): then it is put where `init` is, as runc does.
    pub fn place(&self, pid: i32, init: Option<i32>) -> Result<(), Error> {
        let unified = match &self.driver {
            Driver::V1(v1) => v1.unified(),
            Driver::V2(v2) => Some(v2.unified()),
        };
        unified.map_or(Ok(()), |part| place::place(part, pid, init))
    }

    /// Every process in the container's cgroups and below, in no order.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.pids(),
            Driver::V2(v2) => v2.pids(),
        }
    }

    /// Sends `signal` to every process in the cgroups; for SIGKILL repeated until none is left that was there, frozen
    /// or not. Never signals a process that is not in the cgroup.
    ///
    /// # Errors
    /// [`Error::Survivors`] where processes are left ten seconds after SIGKILL; [`Error::Signal`] for a number
    /// that is none; [`Error::Ourselves`], with nothing signalled, where this process is in the cgroup.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.kill(signal),
            Driver::V2(v2) => v2.kill(signal),
        }
    }

    /// Kills what is left and removes the cgroups, with those that the container made below; no error where they are
    /// gone. Waits at most `limit` for processes to leave.
    ///
    /// # Errors
    /// [`Error::Survivors`] and [`Error::NotRemoved`] when `limit` is over: they name what is left.
    pub fn delete(&self, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        if let Some(unit) = &self.unit {
            // Emptied by us, since systemd asks first and kills later; removed by systemd, which looks into its cgroup
            // to see that a scope has ended. What it leaves, those of v1 that it does not know for one, is removed
            // below.
            let deadline = begun + limit;
            match &self.driver {
                Driver::V1(v1) => v1.empty(deadline)?,
                Driver::V2(v2) => v2.empty(deadline)?,
            }
            match unit.stop(limit.saturating_sub(begun.elapsed()).max(STOP_LIMIT)) {
                // It executes itself anew, or is slow. A scope whose cgroup is empty, or gone, it ends by itself.
                Err(error) if error.is_absence() => {}
                result => result?,
            }
        }
        let left = limit.saturating_sub(begun.elapsed());
        match &self.driver {
            Driver::V1(v1) => v1.delete(left),
            Driver::V2(v2) => v2.delete(left),
        }
    }

    /// Sets limits on a living container, in an order that is safe both up and down. What `resources` does not name
    /// stays as it is, and so do the device rules (as with runc: callers send the whole of `linux.resources` to change
    /// one number).
    ///
    /// # Errors
    /// [`Error::Write`] names the file and the value that the kernel refused; what comes before it in the
    /// order cpu, cpuset, memory, pids, blkio, hugetlb, rdma, net_cls, net_prio is set then.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if let Some(unit) = &self.unit {
            if let Driver::V2(v2) = &self.driver {
                // Else systemd would set what is to be refused.
                v2.check_usage(resources)?;
            }
            unit.update(&self.properties(Some(resources), false)?)?;
        }
        match &self.driver {
            Driver::V1(v1) => v1.update(resources),
            Driver::V2(v2) => v2.update(resources),
        }
    }

    /// Freezes; returns once the kernel says FROZEN, with a limit of five seconds, after which it is thawed again.
    pub fn freeze(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.freeze(),
            Driver::V2(v2) => v2.freeze(),
        }
    }

    /// Thaws.
    pub fn thaw(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.thaw(),
            Driver::V2(v2) => v2.thaw(),
        }
    }

    /// Whether this very cgroup (rather than one above it) was frozen, and is.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.is_frozen(),
            Driver::V2(v2) => v2.is_frozen(),
        }
    }

    /// What the container used so far; after its end too, until it is deleted.
    ///
    /// # Errors
    /// [`Error::Gone`] after that.
    pub fn stats(&self) -> Result<Stats, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.stats(),
            Driver::V2(v2) => v2.stats(),
        }
    }

    /// Arms a watch for OOM kills. Kills before are not counted.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        let watch = match &self.driver {
            Driver::V1(v1) => Watch::V1(v1.watch_oom()?),
            Driver::V2(v2) => Watch::V2(v2.watch_oom(self.unit.is_some())?),
        };
        Ok(OomWatch { watch })
    }
}

/// What all of a pod used: the figures of `parent`, its own cgroup as CRI names it: a path, or one of systemd's slices.
/// Nothing, where it is not there yet.
///
/// # Errors
/// [`Error::Path`] for a name that is none.
pub fn pod_stats(parent: &str) -> Result<Stats, Error> {
    let path = if parent.ends_with(".slice") && !parent.contains('/') {
        format!("/{}", systemd::slice_path(parent)?)
    } else {
        format!("/{}", parent.trim_start_matches('/'))
    };
    match Cgroup::open(&path)?.stats() {
        Err(Error::Gone { .. }) => no_stats(),
        stats => stats,
    }
}

/// Nothing used, in the terms of this host.
pub fn no_stats() -> Result<Stats, Error> {
    Ok(match mode()? {
        Mode::V2 => Stats::V2(Box::default()),
        Mode::V1 | Mode::Hybrid => Stats::V1(Box::new(StatsV1 {
            cpu: Some(Cpu::default()),
            memory: Some(Memory::default()),
            ..StatsV1::default()
        })),
    })
}

impl OomWatch {
    /// Readable when something may have happened. Non-blocking.
    pub fn fd(&self) -> &OwnedFd {
        match &self.watch {
            Watch::V1(watch) => watch.fd(),
            Watch::V2(watch) => watch.fd(),
        }
    }

    /// How many OOM kills there were since the last call (`oom_kill` of memory.oom_control on v1, of memory.events on
    /// v2); drains the fd. 0 where the cgroup has gone. Ask also when a process has ended: a kill for want of memory on
    /// the whole host counts here, but makes no event.
    pub fn take(&mut self) -> Result<u64, Error> {
        match &mut self.watch {
            Watch::V1(watch) => watch.take(),
            Watch::V2(watch) => watch.take(),
        }
    }

    /// [`OomWatch::take`] when the container's last process has ended; `killed`: of SIGKILL. systemd may have taken the
    /// cgroup away with it by then, unread: the kill is told all the same where the cgroup above counted one.
    pub fn take_last(&mut self, killed: bool) -> Result<u64, Error> {
        match &mut self.watch {
            Watch::V1(watch) => watch.take(),
            Watch::V2(watch) => watch.take_last(killed),
        }
    }

    /// Whether an event came that no kill was counted for yet: v1 tells of the lack of memory before it kills, and then
    /// no more. Ask [`OomWatch::take`] again a few milliseconds later.
    pub fn pending(&self) -> bool {
        match &self.watch {
            Watch::V1(watch) => watch.pending(),
            // v2 tells when it has counted.
            Watch::V2(_) => false,
        }
    }
}
