//! The distributions of Kubernetes that are known, and where each keeps containerd's things.

use std::fmt;
use std::str::FromStr;

/// Who runs containerd on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// containerd as a service of its own: kubeadm, kind, the clouds' images.
    Containerd,
    /// k3s, server or agent.
    K3s,
    /// RKE2, server or agent.
    Rke2,
    /// k0s.
    K0s,
    /// `MicroK8s`.
    Microk8s,
}

/// How a distribution's configuration is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// containerd reads the file itself: it, or a directory that it imports.
    File,
    /// The file is written anew at every start, out of a template beside it.
    Rendered,
    /// A directory that the distribution merges by itself, without a restart.
    Merged {
        /// The directory.
        directory: &'static str,
    },
}

/// Where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The configuration that says which version the configuration has.
    pub config: &'static str,
    /// How it is changed.
    pub method: Method,
    /// The units that may run containerd here; the active one is restarted.
    pub units: &'static [&'static str],
    /// containerd's socket.
    pub socket: &'static str,
    /// containerd's state directory, which holds the bundles of running containers.
    pub state: &'static str,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Containerd, Self::K3s, Self::Rke2, Self::K0s, Self::Microk8s];

    /// Its name in values and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::Microk8s => "microk8s",
        }
    }

    /// Where its things are.
    pub fn layout(self) -> Layout {
        match self {
            Self::Containerd => Layout {
                config: "/etc/containerd/config.toml",
                method: Method::File,
                units: &["containerd.service"],
                socket: "/run/containerd/containerd.sock",
                state: "/run/containerd",
            },
            Self::K3s => Layout {
                config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
                method: Method::Rendered,
                units: &["k3s.service", "k3s-agent.service"],
                socket: "/run/k3s/containerd/containerd.sock",
                state: "/run/k3s/containerd",
            },
            Self::Rke2 => Layout {
                config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
                method: Method::Rendered,
                units: &["rke2-server.service", "rke2-agent.service"],
                socket: "/run/k3s/containerd/containerd.sock",
                state: "/run/k3s/containerd",
            },
            Self::K0s => Layout {
                config: "/etc/k0s/containerd.toml",
                method: Method::Merged {
                    directory: "/etc/k0s/containerd.d",
                },
                units: &[],
                socket: "/run/k0s/containerd.sock",
                state: "/run/k0s/containerd",
            },
            Self::Microk8s => Layout {
                config: "/var/snap/microk8s/current/args/containerd-template.toml",
                method: Method::File,
                units: &["snap.microk8s.daemon-containerd.service"],
                socket: "/var/snap/microk8s/common/run/containerd.sock",
                state: "/var/snap/microk8s/common/run/containerd",
            },
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is none of a distribution.
#[derive(Debug, thiserror::Error)]
#[error("there is no distribution `{0}`; there are: containerd, k3s, rke2, k0s, microk8s")]
pub struct UnknownDistribution(String);

impl FromStr for Distribution {
    type Err = UnknownDistribution;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| UnknownDistribution(name.to_owned()))
    }
}
