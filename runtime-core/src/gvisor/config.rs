//! How gVisor is to be run: the node's choice, never a pod's.

use std::path::PathBuf;

pub use crate::policy::{EmptyDir, FileAccess, Network, Overlay, Platform};

use crate::policy::{Origin, Policy};

/// Settings of the gVisor runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where runsc may be; the first that exists is taken.
    pub paths: Vec<PathBuf>,
    /// What runsc's content has to be, as 64 hex digits.
    pub sha256: Option<String>,
    /// What the sentry intercepts system calls with.
    pub platform: Platform,
    /// Whose network stack containers use.
    pub network: Network,
    /// Whether somebody else changes root file systems.
    pub file_access: FileAccess,
    /// Where what is written to root file systems goes.
    pub overlay: Overlay,
    /// Where pods' emptyDir volumes are kept.
    pub empty_dir: EmptyDir,
    /// Where kubelet may have the pods' directories.
    pub kubelet_root: Vec<PathBuf>,
    /// Above the directories of the pods' debug logs.
    pub debug_log: Option<PathBuf>,
    /// More flags for runsc, with their values.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// What the policy says of it.
    pub fn of(policy: &Policy) -> Self {
        Self {
            paths: policy.gvisor_path.value.0.iter().map(PathBuf::from).collect(),
            sha256: policy.gvisor_sha256.value.0.clone(),
            platform: policy.gvisor_platform.value,
            network: policy.gvisor_network.value,
            file_access: policy.gvisor_file_access.value,
            overlay: match policy.gvisor_file_access.value {
                // Who asks the host each time can have none; that nobody asked for one is no contradiction.
                FileAccess::Shared if policy.gvisor_overlay2.from == Origin::Default => Overlay::None,
                _ => policy.gvisor_overlay2.value,
            },
            empty_dir: policy.gvisor_empty_dir.value,
            kubelet_root: policy.gvisor_kubelet_root.value.0.iter().map(PathBuf::from).collect(),
            debug_log: match policy.gvisor_debug_log.value.0.as_str() {
                "" => None,
                path => Some(path.into()),
            },
            flags: policy.gvisor_flags.value.0.clone(),
        }
    }
}

impl Platform {
    /// Its name for runsc.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Systrap => "systrap",
            Self::Kvm => "kvm",
            Self::Ptrace => "ptrace",
        }
    }
}

impl Network {
    /// Its name for runsc.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

impl FileAccess {
    /// Its name for runsc.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

impl Overlay {
    /// Its name for runsc.
    pub fn flag(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RootSelf => "root:self",
            Self::RootMemory => "root:memory",
        }
    }
}
