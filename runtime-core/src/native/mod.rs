//! Carries a Plan out with the kernel's own means.
//!
//! Blocking calls, meant for short-lived threads of their own; nothing here knows an event loop.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::plan::{self, Plan};
use crate::record::ProcessId;

/// Why something could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

/// A detached read-only clone of our own binary: what holders are executed from (CVE-2019-5736).
#[derive(Debug)]
pub struct Executable {}

/// The three standard streams; None is /dev/null. Not used by a process with a terminal.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Stdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A child process of ours: init or an exec.
#[derive(Debug)]
pub struct Process {}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    /// The number that the Task API reports: the exit code, or 128 + the signal.
    pub fn code(self) -> u32 {
        match self {
            Self::Code(code) => code as u32,
            Self::Signal(signal) => 128 + signal as u32,
        }
    }
}

/// A process just made, and the master side of its pseudo terminal if it has one.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Launched {
    pub process: Process,
    pub console: Option<OwnedFd>,
}

/// A created container. Dropping it without [`Container::delete`] leaves clean-up to [`clean`].
#[derive(Debug)]
pub struct Container {}

/// Who runs the container: goes into its record.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Owner {
    pub group: String,
    pub socket: Option<std::path::PathBuf>,
}

/// What [`clean`] found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cleaned {
    /// Init's pid, where the record had one.
    pub pid: Option<i32>,
}

impl Executable {
    /// Clones /proc/self/exe. Once a shim.
    pub fn detach() -> Result<Self, Error> {
        unimplemented!()
    }
}

impl Process {
    /// Its pid in our PID namespace.
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }

    /// Readable once the process has ended. Stays valid for the life of `self`.
    pub fn pidfd(&self) -> &OwnedFd {
        unimplemented!()
    }

    /// Sends a signal; Ok(false) where the process has ended.
    pub fn signal(&self, _signal: i32) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Reaps it if it has ended; may be asked again afterwards.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        unimplemented!()
    }
}

/// Creates the container: when this returns, init waits before the execve of its program. On error nothing is left.
pub fn create(_exe: &Executable, _plan: &Plan, _owner: &Owner, _stdio: Stdio) -> Result<(Container, Launched), Error> {
    unimplemented!()
}

impl Container {
    /// Lets init execute its program (startContainer hooks before, poststart after).
    pub fn start(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Starts a process beside init.
    pub fn exec(&self, _process: &plan::Process, _stdio: Stdio) -> Result<Launched, Error> {
        unimplemented!()
    }

    /// The container's cgroups.
    pub fn cgroup(&self) -> &Cgroup {
        unimplemented!()
    }

    /// Whether it has a PID namespace of its own: then all its processes end with init.
    pub fn has_own_pid_namespace(&self) -> bool {
        unimplemented!()
    }

    /// After init was reaped: ends the holder, removes cgroups and record, runs poststop hooks. Bounded; done again, it
    /// does no harm.
    pub fn delete(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

/// Cleans up the container of `bundle` after its shim died, from its record alone, and, where the container was the
/// group's leader (its id is the group), every other container of the group whose shim is the same dead one. Idempotent.
pub fn clean(_bundle: &Path) -> Result<Cleaned, Error> {
    unimplemented!()
}

/// The holder's program: what `containerd-shim-nucleus-v2 init` runs. Never returns.
pub fn holder_main() -> ! {
    unimplemented!()
}

/// `ProcessId` of a process of ours, for messages.
#[allow(dead_code)]
fn _face(_: ProcessId) {}
