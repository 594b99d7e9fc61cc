//! One container's cgroups: create, join, limits, freeze, kill, statistics, OOM.
//!
//! cgroup v1 and hybrid hosts, cgroupfs driver. What a user can see follows runc: the same path in every hierarchy, the
//! named and, on hybrid hosts, the unified one included; parents that had to be made stay when the container goes. cgroup v2
//! alone and the systemd driver are further variants of `Driver`.
//!
//! On the way of every container are [`Cgroup::create`], [`Cgroup::join_files`] and [`Cgroup::delete`]: no mount table is
//! read there, files are opened below one fd a hierarchy, and no file is read that need not be.

mod directory;
mod error;
mod hierarchy;
mod path;
mod stats;
#[cfg(test)]
mod tests;
mod v1;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

pub use error::Error;
use hierarchy::{Host, host};
pub use hierarchy::{Mode, mode};
use path::CgroupsPath;
pub use stats::{
    Blkio, BlkioEntry, Counter, Cpu, Hugetlb, Io, Keyed, Memory, Pids, Pressure, Rdma, RdmaEntry, Stall, Stats,
    StatsV1, StatsV2,
};

/// The cgroups of one container: the same path below every hierarchy. Holds no fd and no lock; it may be shared between
/// threads.
#[derive(Debug, Clone)]
pub struct Cgroup {
    driver: Driver,
}

/// Who carries the operations out.
#[derive(Debug, Clone)]
enum Driver {
    /// cgroup v1, with or without a unified hierarchy beside it; cgroupfs.
    V1(v1::V1),
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
    watch: v1::Watch,
}

impl Cgroup {
    /// Makes the cgroups at `path` (as `linux.cgroupsPath` gives it) and sets `resources`. Relative paths are below our own
    /// cgroup. What is missing above is made as well, and stays.
    ///
    /// An empty cgroup that is there is used, as runc does.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::AlreadyFrozen`] where the cgroup is in use; [`Error::NotMounted`] and [`Error::Write`]
    /// for a limit that cannot be set; [`Error::Path`] for a path that is none. Nothing new is left behind then.
    pub fn create(path: &str, resources: Option<&LinuxResources>) -> Result<Self, Error> {
        let cgroup = Self::open(path)?;
        match &cgroup.driver {
            Driver::V1(v1) => v1.create(resources)?,
        }
        Ok(cgroup)
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
        match host.mode()? {
            Mode::V2 => Err(Error::V2Unsupported),
            Mode::V1 | Mode::Hybrid => Ok(Self {
                driver: Driver::V1(v1::V1::of(host, &parsed)?),
            }),
        }
    }

    /// Whether [`Cgroup::create`] would find the cgroup in use; one look at one hierarchy. For whoever writes down that the
    /// cgroup is a container's own before it is made: what is cleaned up by such a note must not be somebody else's.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn check_free(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.check_free(),
        }
    }

    /// Where the container is, one entry a hierarchy; the unified one comes last.
    pub fn places(&self) -> Vec<Place> {
        match &self.driver {
            Driver::V1(v1) => v1.places(),
        }
    }

    /// Whether any of the cgroups is there.
    pub fn exists(&self) -> bool {
        match &self.driver {
            Driver::V1(v1) => v1.exists(),
        }
    }

    /// The files into which a process writes "0" to place itself (v1 `tasks`), one a hierarchy.
    ///
    /// Moves the writing **thread** alone, so it is for a process that has one. In the unified hierarchy of a hybrid host
    /// there is no such file: see [`Cgroup::clone_into`].
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.join_files(),
        }
    }

    /// The directory to be given to clone3(2)'s CLONE_INTO_CGROUP: the container's cgroup in the unified hierarchy. None on
    /// a host without one.
    ///
    /// There is no cheap way for a process to move itself there: the first write to `cgroup.procs` after a quiet moment
    /// waits some ten milliseconds for a grace period, and `cgroup.threads` does not cross domains.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.clone_into(),
        }
    }

    /// Every process in the container's cgroups and below, in no order.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.pids(),
        }
    }

    /// Sends `signal` to every process in the cgroups; for SIGKILL repeated until none is left that was there, frozen or
    /// not. Never signals a process that is not in the cgroup.
    ///
    /// # Errors
    /// [`Error::Survivors`] where processes are left ten seconds after SIGKILL; [`Error::Signal`] for a number that is none;
    /// [`Error::Ourselves`], with nothing signalled, where this process is in the cgroup.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.kill(signal),
        }
    }

    /// Kills what is left and removes the cgroups, with those that the container made below; no error where they are gone.
    /// Waits at most `limit` for processes to leave.
    ///
    /// # Errors
    /// [`Error::Survivors`] and [`Error::NotRemoved`] when `limit` is over: they name what is left.
    pub fn delete(&self, limit: Duration) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.delete(limit),
        }
    }

    /// Sets limits on a living container, in an order that is safe both up and down. What `resources` does not name stays as
    /// it is, and so do the device rules (as with runc: callers send the whole of `linux.resources` to change one number).
    ///
    /// # Errors
    /// [`Error::Write`] names the file and the value that the kernel refused; what comes before it in the order cpu, cpuset,
    /// memory, pids, blkio, hugetlb, rdma, net_cls, net_prio is set then.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.update(resources),
        }
    }

    /// Freezes; returns once the kernel says FROZEN, with a limit of five seconds, after which it is thawed again.
    pub fn freeze(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.freeze(),
        }
    }

    /// Thaws.
    pub fn thaw(&self) -> Result<(), Error> {
        match &self.driver {
            Driver::V1(v1) => v1.thaw(),
        }
    }

    /// Whether this very cgroup (rather than one above it) was frozen, and is.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.is_frozen(),
        }
    }

    /// What the container used so far; after its end too, until it is deleted.
    ///
    /// # Errors
    /// [`Error::Gone`] after that.
    pub fn stats(&self) -> Result<Stats, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.stats(),
        }
    }

    /// Arms a watch for OOM kills. Kills before are not counted.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        match &self.driver {
            Driver::V1(v1) => v1.watch_oom().map(|watch| OomWatch { watch }),
        }
    }
}

impl OomWatch {
    /// Readable when something may have happened. Non-blocking.
    pub fn fd(&self) -> &OwnedFd {
        self.watch.fd()
    }

    /// How many OOM kills there were since the last call (v1: `oom_kill` of memory.oom_control); drains the fd. 0 where the
    /// cgroup has gone. Ask also when a process has ended: a kill for want of memory on the whole host counts here, but makes
    /// no event.
    pub fn take(&mut self) -> Result<u64, Error> {
        self.watch.take()
    }

    /// Whether an event came that no kill was counted for yet: v1 tells of the lack of memory before it kills, and then no
    /// more. Ask [`OomWatch::take`] again a few milliseconds later.
    pub fn pending(&self) -> bool {
        self.watch.pending()
    }
}
