//! What may go wrong on a node.

use std::io;
use std::path::PathBuf;

use crate::cri::CriError;
use crate::distribution::Distribution;
use crate::plan::PlanError;
use crate::systemd::SystemdError;

/// Why a node was left as it was, or what became of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Nothing that speaks CRI is where the distribution has it.
    #[error(
        "no containerd to be found on this node as {distribution} has it; set `distribution` to what runs here \
         (containerd, \
         k3s, rke2, k0s, microk8s), or `installer.socket` to its socket"
    )]
    NoContainerd {
        /// What was declared.
        distribution: Distribution,
        /// What came of asking.
        #[source]
        source: CriError,
    },
    /// Another runtime, or an old one.
    #[error("{name} {version} is not supported: nucleus needs containerd 1.6 or later")]
    Unsupported {
        /// The runtime.
        name: String,
        /// Its version.
        version: String,
    },
    /// The configuration stands against it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// systemd stands against it.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A file could not be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that would be replaced is a link to somewhere else.
    #[error("{} is a symbolic link: set `installer.config` to the file that it leads to", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("{operation} {}", .path.display())]
    Write {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// containerd came back and did not answer.
    #[error("containerd does not answer after its restart; its log says why")]
    Silent {
        /// What came of asking.
        #[source]
        source: CriError,
    },
    /// containerd came back and has not read what was written.
    #[error(
        "containerd answers, and knows the handlers {handlers:?}: it reads another configuration file (see `--config` \
         in \
         its unit and set `installer.config`), or a later file replaces the section"
    )]
    OtherHandlers {
        /// What it knows.
        handlers: Vec<String>,
    },
    /// A failure whose changes could not be taken back.
    #[error("{path} could not be put back ({reason}) after a failure")]
    NotUndone {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
        /// The failure itself.
        #[source]
        source: Box<NodeError>,
    },
    /// Pods of the class run here.
    #[error(
        "{count} containers of nucleus run on this node ({example}, …): delete their pods first, or they could not be \
         cleaned up without the shim"
    )]
    InUse {
        /// How many.
        count: usize,
        /// One of them.
        example: String,
    },
}
