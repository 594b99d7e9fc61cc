//! How gVisor is to be run: the node's choice, never a pod's.

use std::path::PathBuf;

pub use crate::policy::{Network, Platform};

use crate::policy::Policy;

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
}

impl Config {
    /// What the policy says of it.
    pub fn of(policy: &Policy) -> Self {
        Self {
            paths: policy.gvisor_path.value.0.iter().map(PathBuf::from).collect(),
            sha256: policy.gvisor_sha256.value.0.clone(),
            platform: policy.gvisor_platform.value,
            network: policy.gvisor_network.value,
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
