//! Carries a Plan out with the kernel's own means.
//!
//! Blocking calls, meant for short-lived threads of their own; nothing here knows an event loop. [`create`],
//! [`container`], [`child`] and [`clean`] are the shim's side; [`holder`], [`init`] and what they use run in processes
//! of their own, each with a single thread.

mod backend;
mod child;
mod clean;
mod console;
mod container;
mod create;
mod domain;
mod entry;
mod executable;
mod holder;
mod identity;
mod init;
mod label;
mod late;
pub(crate) mod lifecycle_hooks;
mod listener;
mod member;
mod passwd;
mod pause;
mod reaper;
mod recorder;
mod sandbox;
mod wire;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::plan::Plan;
use crate::record::{self, ProcessId, Record};
use crate::sys::process;

pub use clean::{Cleaned, clean};
pub use container::Container;
pub use create::create;
pub use holder::holder_main;
pub(crate) use member::Member;
pub use member::{ACTION as MEMBER_ACTION, member_main};
pub use pause::{ACTION as PAUSE_ACTION, pause_main};
pub use sandbox::Sandbox;
pub(crate) use wire::{from_memfd, memfd};

/// Why something could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call of the shim's own side failed.
    #[error("{operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The holder, init or an exec'd process told why it could not go on.
    #[error("{0}")]
    Setup(String),
    /// A process ended without a word: killed from outside, or out of memory.
    #[error("the {who} of container {id} ended before it was ready")]
    Ended {
        /// holder, init or process.
        who: &'static str,
        /// The container.
        id: String,
    },
    /// Whoever is to answer for calls cannot be told of the container.
    #[error("linux.seccomp.listenerPath: handing the listener to the agent at {path:?}")]
    Agent {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A recorded profile cannot be written.
    #[error("seccomp.record_to: {path:?}")]
    Recording {
        /// The directory, or the profile.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] crate::hooks::Error),
    /// The cgroups could not be made or changed.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// The record could not be written or read.
    #[error(transparent)]
    Record(#[from] crate::record::Error),
}

/// A detached read-only clone of our own binary: what holders are executed from (CVE-2019-5736).
#[derive(Debug)]
pub struct Executable(OwnedFd);

impl Executable {
    /// Clones /proc/self/exe. Once a shim.
    pub fn detach() -> Result<Self, Error> {
        crate::sys::spawn::detached_self()
            .map(Self)
            .map_err(|source| Error::Io {
                operation: "cloning our own binary's mount (open_tree of /proc/self/exe)",
                source,
            })
    }

    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

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
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    ended: Mutex<Option<ExitStatus>>,
}

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

impl Process {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            ended: Mutex::new(None),
        }
    }

    /// Its pid in our PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once the process has ended. Stays valid for the life of `self`.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Sends a signal; Ok(false) where the process has ended.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<bool, Error> {
        match process::send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(source) => Err(Error::Io {
                operation: "sending a signal",
                source,
            }),
        }
    }

    /// Reaps it if it has ended; may be asked again afterwards.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.wait_with(|pidfd| process::try_reap(pidfd))
    }

    /// Waits for its end and reaps it.
    pub(crate) fn wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.wait_with(|pidfd| process::reap(pidfd).map(Some))
    }

    fn wait_with(
        &self,
        reap: impl FnOnce(&OwnedFd) -> std::io::Result<Option<process::Ended>>,
    ) -> Result<Option<ExitStatus>, Error> {
        let mut ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.is_none() {
            *ended = reap(&self.pidfd)
                .map_err(|source| Error::Io {
                    operation: "waiting for a process",
                    source,
                })?
                .map(|ended| match ended {
                    process::Ended::Code(code) => ExitStatus::Code(code),
                    process::Ended::Signal(signal) => ExitStatus::Signal(signal),
                });
        }
        Ok(*ended)
    }
}

/// A process just made, and the master side of its pseudo terminal if it has one.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Launched {
    pub process: Process,
    pub console: Option<OwnedFd>,
    /// What of the container's mounts is not as it was meant.
    pub differences: Vec<String>,
}

/// Who runs the container: goes into its record.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Owner {
    pub namespace: String,
    pub group: String,
    pub socket: Option<PathBuf>,
}

impl Owner {
    /// The record of `plan`'s container before anything of it is there.
    pub(crate) fn record_of(&self, plan: &Plan) -> std::io::Result<Record> {
        let poststop = plan.container.hooks.poststop.clone();
        Ok(Record {
            cgroup: Some(plan.cgroup.clone()),
            annotations: match poststop.as_slice() {
                [] => Vec::new(),
                _ => plan.container.annotations.clone(),
            },
            poststop,
            policy: Some(plan.policy.clone()),
            ..self.empty_record(&plan.id)?
        })
    }

    /// One of `id` that names nothing to be cleaned up.
    fn empty_record(&self, id: &str) -> std::io::Result<Record> {
        // ESRCH: there is no process of ours, by what /proc says.
        let shim = ProcessId::of(std::process::id() as i32);
        Ok(Record {
            version: record::VERSION,
            id: id.to_owned(),
            group: self.group.clone(),
            shim: shim.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESRCH))?,
            socket: self.socket.clone(),
            init: None,
            cgroup: None,
            poststop: Vec::new(),
            annotations: Vec::new(),
            policy: None,
            sandbox: None,
        })
    }
}

/// Names the operation whose error this is.
fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
