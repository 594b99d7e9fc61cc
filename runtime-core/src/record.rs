//! What is on disk about a container, for cleaning up after a crash.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for another: a pid alone may have been used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, as this host's first PID namespace (or the shim's own) numbers it.
    pub pid: i32,
    /// Clock ticks after boot at which it started: field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

/// The record of one container, `<bundle>/nucleus.json`: written before anything that would need cleaning up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this file; a reader refuses one that it does not know.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The group (pod) that shares one shim.
    pub group: String,
    /// The shim that runs it.
    pub shim: ProcessId,
    /// The shim's socket, to be unlinked when the shim is dead.
    pub socket: Option<PathBuf>,
    /// The container's init, once it exists.
    pub init: Option<ProcessId>,
    /// The cgroup path, the same below every hierarchy; None before a cgroup was made.
    pub cgroup: Option<String>,
    /// poststop hooks that are still owed, as the OCI spec writes them.
    #[serde(default)]
    pub poststop: Vec<oci_spec::runtime::Hook>,
}

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

/// Name of the record's file in the bundle directory.
pub const FILE_NAME: &str = "nucleus.json";

impl ProcessId {
    /// The process `pid` as it is now, None where there is none.
    pub fn of(_pid: i32) -> Option<Self> {
        unimplemented!()
    }

    /// Whether this very process still exists (a zombie does).
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

impl Record {
    /// Writes the record (temporary file, fsync on a disk file system, rename).
    pub fn write(&self, _bundle: &Path) -> Result<(), Error> {
        unimplemented!()
    }

    /// Reads the record; None where there is none.
    pub fn read(_bundle: &Path) -> Result<Option<Self>, Error> {
        unimplemented!()
    }

    /// Removes the record; no error where there is none.
    pub fn remove(_bundle: &Path) -> Result<(), Error> {
        unimplemented!()
    }
}
