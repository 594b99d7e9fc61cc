//! The container's file systems: rootfs, mounts, devices, masks. All of it is the holder's work, inside the container's
//! mount namespace; nothing is ever mounted where the host could see it.
//!
//! Every path in the container is resolved below one fd of its root ([`paths`]); every mount is made detached and then
//! attached to the fd that was resolved: between the two there is no path that the container could exchange.

mod audit;
mod cgroup;
mod copy_up;
mod devices;
mod filesystem;
mod idmap;
mod namespace_root;
mod overlay;
mod paths;
mod rootfs;
mod secrets;
mod switch_root;
mod tree;
mod verified;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::{Mount, MountSource};

pub use filesystem::open as open_filesystem;
pub use filesystem::open_proc;
pub use filesystem::split_layers as overlay_layers;
pub use paths::{existing, is_directory, unlinked};
pub use switch_root::switch_root;
pub use tree::Tree;

/// Why a mount or a node could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("opening the bind source {path:?} for {destination}")]
    Source {
        path: PathBuf,
        destination: String,
        source: io::Error,
    },
    #[error("making a {kind} file system for {destination}: {what}{log}")]
    Filesystem {
        kind: String,
        destination: String,
        what: String,
        log: String,
        source: io::Error,
    },
    #[error("the bind source {path:?} for {destination} leads to {real:?}, {what}: host_paths = \"refuse\" forbids it")]
    HostPath {
        path: PathBuf,
        destination: String,
        real: PathBuf,
        what: &'static str,
    },
    #[error("setting options of the mount at {destination} (attributes {set:#x}, cleared {clear:#x})")]
    Attributes {
        destination: String,
        set: u64,
        clear: u64,
        source: io::Error,
    },
    #[error("setting propagation {flags:#x} of the mount at {destination}")]
    Propagation {
        destination: String,
        flags: u64,
        source: io::Error,
    },
    #[error("mapping ids of the mount at {destination}")]
    IdMap { destination: String, source: io::Error },
    #[error(transparent)]
    UserNamespace(#[from] crate::sys::user_namespace::Error),
    #[error("making the mount point {destination} in the container")]
    Target { destination: String, source: io::Error },
    #[error("{0} is a symbolic link in the image: proc and sysfs are mounted on real directories only")]
    Symlink(String),
    #[error("mounting at {destination}")]
    Attach { destination: String, source: io::Error },
    #[error("rootfs {path:?}: {operation}")]
    Root {
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
    #[error("making the device {path}")]
    Device { path: String, source: io::Error },
    #[error("the host's {0} is not the device that it should be")]
    WrongDevice(String),
    #[error("making the link {path} -> {target}")]
    Link {
        path: String,
        target: &'static str,
        source: io::Error,
    },
    #[error("{operation} {path}")]
    Seal {
        operation: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("keeping {destination} in memory: {what}")]
    Memory {
        destination: String,
        what: &'static str,
        source: io::Error,
    },
    #[error("keeping {destination} in memory: it has more than {limit} {unit}; only small volumes can be kept there")]
    MemoryLimit {
        destination: String,
        limit: u64,
        unit: &'static str,
    },
    #[error("volume_digest: {destination} has sha256:{found}, and sha256:{expected} is demanded")]
    VolumeDiffers {
        destination: String,
        found: String,
        expected: String,
    },
    #[error("volume_digest: {destination}: {path:?} is neither a file, a directory nor a link")]
    VolumeKind { destination: String, path: PathBuf },
    #[error("volume_digest: {destination} has more than {limit} {unit}; only small volumes can be compared")]
    VolumeLimit {
        destination: String,
        limit: u64,
        unit: &'static str,
    },
    #[error("volume_digest: {destination}: {operation} {path:?}")]
    Volume {
        destination: String,
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Attest(#[from] crate::attest::Error),
    #[error("mount audit: {operation}")]
    Audit { operation: &'static str, source: io::Error },
    #[error("mount audit: {0} (mount_audit = \"refuse\")")]
    Differs(String),
    #[error("copying the image's {path} into a tmpfs")]
    CopyUp { path: String, source: io::Error },
    #[error("making the working directory {path:?}")]
    Cwd { path: String, source: io::Error },
}

/// One hierarchy as the container may see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HierarchyView {
    /// Directory name below the container's /sys/fs/cgroup: `memory`, `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// The container's own directory in it, on the host.
    pub directory: PathBuf,
}

/// Whether this is a proc mount: only a process of the container's PID namespace can make it.
pub fn is_proc(mount: &Mount) -> bool {
    is_new(mount, "proc")
}

/// Whether `mount` is a new instance of the file system `kind`.
fn is_new(mount: &Mount, kind: &str) -> bool {
    matches!(&mount.source, MountSource::New { kind: found, .. } if found == kind)
}
