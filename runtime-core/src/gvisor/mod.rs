//! Carries a Plan out through gVisor's `runsc`: one sentry a pod.
//!
//! `runsc` is run for what only it can do: to create a sandbox or a container in one, and to start it. What is said to
//! a sentry that runs (exec, signals, waiting, pausing, ending a container) goes over its control socket, by ourselves:
//! no process is started for it and none stays to wait. The cgroups, the rootfs and the mounts' sources are made by the
//! same code as a native container's, in a mount namespace that `runsc` and its gofer alone are in.

mod backend;
mod clean;
mod command;
mod config;
mod container;
mod control;
mod create;
mod empty_dirs;
mod exec;
mod features;
mod flags;
mod launch;
mod launcher;
mod limits;
mod process;
mod refusals;
mod releases;
mod sandbox;
mod spec;
mod state;
mod stats;
mod terminal;
mod trust;
mod version;
mod wishes;

use std::io;
use std::path::PathBuf;

pub use clean::clean;
pub use config::Config;
pub use container::{Container, Launched};
pub use features::features;
pub use launcher::launcher_main;
pub use process::Process;
pub use sandbox::Sandboxes;
pub use trust::{Runsc, Untrusted};
pub use version::MINIMUM;

/// Why something could not be carried out through gVisor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// A system call of ours failed.
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
    /// A file or directory of ours.
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Where debug logs are to go.
    #[error("gvisor.debug_log {}", path.display())]
    Logs {
        path: PathBuf,
        #[source]
        source: Box<Error>,
    },
    /// runsc is not to be trusted, or too old.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// A field of the spec that gVisor cannot honour.
    #[error("{field} is not supported with runtime = \"gvisor\": {reason}")]
    Unsupported { field: String, reason: &'static str },
    /// A flag of the node's for runsc that is not to be set.
    #[error("gvisor.flags: {name} is refused: {reason}")]
    Flag { name: String, reason: String },
    /// Two settings that runsc cannot have together.
    #[error(
        "gvisor.file_access is \"shared\" and gvisor.overlay2 is not \"none\": an overlay hides what the host \
         changes; set one of them"
    )]
    SharedOverlay,
    /// The container belongs to a sandbox that this shim does not have.
    #[error("container {id} is to join the sandbox {sandbox}, which does not run here")]
    NoSandbox { id: String, sandbox: String },
    /// What runs before runsc could not do its part.
    #[error("preparing for runsc {command}: {text}")]
    Launcher { command: &'static str, text: String },
    /// runsc said why.
    #[error("runsc {command}: {text}")]
    Runsc { command: &'static str, text: String },
    /// runsc took too long, and was ended.
    #[error("runsc {command} took longer than {seconds} s and was ended")]
    Slow { command: &'static str, seconds: u64 },
    /// The sentry said why.
    #[error("the sentry, asked for {method}: {text}")]
    Sentry { method: &'static str, text: String },
    /// The sentry's socket.
    #[error("asking the sentry for {method}")]
    Control { method: &'static str, source: io::Error },
    /// What the sentry answered is no answer.
    #[error("the sentry's answer to {method} makes no sense")]
    Answer {
        method: &'static str,
        source: serde_json::Error,
    },
    /// Not while the container is where it is.
    #[error("container {id} cannot be asked to {operation}: {reason}")]
    State {
        id: String,
        operation: &'static str,
        reason: &'static str,
    },
    /// What runsc is to find mounted.
    #[error(transparent)]
    Mount(#[from] crate::mounts::Error),
    #[error(transparent)]
    Hook(#[from] crate::hooks::Error),
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    #[error(transparent)]
    Record(#[from] crate::record::Error),
    /// The process that holds a scope's place.
    #[error(transparent)]
    Place(Box<crate::native::Error>),
}

impl Error {
    /// Whether the sentry has closed its socket: it has ended, or is about to.
    fn is_hung_up(&self) -> bool {
        use io::ErrorKind as Kind;
        matches!(self, Self::Control { source, .. } if matches!(
            source.kind(),
            Kind::ConnectionRefused | Kind::ConnectionReset | Kind::BrokenPipe | Kind::NotFound | Kind::UnexpectedEof
        ))
    }

    /// Whether the request is at fault, not the host.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. } | Self::State { .. } | Self::Flag { .. } | Self::SharedOverlay
        )
    }
}

/// Names the operation whose error this is.
fn failing(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}

/// Names the file whose error this is.
fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File {
        operation,
        path,
        source,
    }
}
