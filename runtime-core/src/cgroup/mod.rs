//! One container's cgroups: create, join, limits, freeze, kill, statistics, OOM.

use std::os::fd::OwnedFd;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

/// The cgroups of one container: the same path below every hierarchy.
#[derive(Debug)]
pub struct Cgroup {}

/// A process list entry, a statistic… see `stats`.
#[derive(Debug, Clone, Default)]
pub struct Stats {}

/// Tells of processes that the kernel killed for want of memory. Poll [`OomWatch::fd`] for reading, then ask
/// [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {}

impl Cgroup {
    /// Makes the cgroups at `path` (as `linux.cgroupsPath` gives it) and sets `resources`.
    pub fn create(_path: &str, _resources: Option<&LinuxResources>) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The cgroups at `path`, which may be gone in part or in whole: for clean-up.
    pub fn open(_path: &str) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The files into which a process writes "0" to place itself (v1 `tasks`), one a hierarchy.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        unimplemented!()
    }

    /// Sets limits on a living container, in an order that is safe both up and down.
    pub fn update(&self, _resources: &LinuxResources) -> Result<(), Error> {
        unimplemented!()
    }

    /// Every process in the container's cgroups and below.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        unimplemented!()
    }

    /// Freezes; returns once the kernel says FROZEN, with a limit.
    pub fn freeze(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Thaws.
    pub fn thaw(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Sends `signal` to every process in the cgroups; for SIGKILL repeated until none is left that was there.
    pub fn kill(&self, _signal: i32) -> Result<(), Error> {
        unimplemented!()
    }

    /// What the container used so far.
    pub fn stats(&self) -> Result<Stats, Error> {
        unimplemented!()
    }

    /// Arms a watch for OOM kills.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        unimplemented!()
    }

    /// Kills what is left and removes the cgroups; no error where they are gone. Waits at most `limit` for processes to
    /// leave.
    pub fn delete(&self, _limit: Duration) -> Result<(), Error> {
        unimplemented!()
    }
}

impl OomWatch {
    /// Readable when something may have happened.
    pub fn fd(&self) -> &OwnedFd {
        unimplemented!()
    }

    /// How many OOM kills there were since the last call (v1: `oom_kill` of memory.oom_control); drains the fd.
    pub fn take(&mut self) -> Result<u64, Error> {
        unimplemented!()
    }
}
