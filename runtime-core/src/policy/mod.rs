//! What a node demands of its containers: settings, each decided by one of four layers, resolved once for a container.
//!
//! Built-in defaults < `/etc/nucleus/config.toml` ([`node`]) < the handler's options < the pod's annotations
//! `nucleus.dev/…`. Node and handler are the administrator's and may say anything; a pod may only tighten what they
//! say. [`Layer`] is what one of them says, [`resolve`] makes a [`Policy`] of all, purely: the Plan is translated under
//! it, and the container's record keeps it.
//!
//! A setting enters [`settings`] when it is honoured, with its documentation; `docs/policy.md` is compared with that
//! list.

mod audit;
mod egress;
mod host_path;
mod landlock;
mod nearest;
pub mod node;
pub mod pinned;
mod pins;
pub mod profiles;
mod program;
mod resolve;
mod secrets;
mod settings;
#[cfg(test)]
mod tests;
pub mod toml;
mod values;
mod volumes;

pub use audit::Audit;
pub use egress::{Destination, Egress, Protocol, Reach};
pub use host_path::gives_away;
pub use landlock::{Ports, Scopes, Trees};
pub(crate) use landlock::{is_in, plain};
pub use pins::{Directory, Pins};
pub use program::{Digest, Flags, Paths};
pub use resolve::{ANNOTATION_PREFIX, resolve};
pub use secrets::Secrets;
pub use settings::{Layer, Policy, SETTINGS, Setting};
pub use values::{
    CapabilityLimit, EmptyDir, FileAccess, Given, HostPaths, Lockdown, Mode, MountAudit, Names, Network, Overlay,
    Platform, Proc, Runtime, SeccompMode, Tier, Value,
};
pub use volumes::VolumeDigests;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who decided a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Origin {
    #[default]
    Default,
    Node,
    Handler,
    Pod,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "the default",
            Self::Node => "the node's configuration",
            Self::Handler => "the handler's options",
            Self::Pod => "the pod",
        })
    }
}

/// A setting's value and who decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Decided<T> {
    pub value: T,
    pub from: Origin,
}

/// Why there is no policy: nothing is created then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// Not the subset of TOML that configurations are written in.
    #[error("{place}")]
    Toml {
        place: String,
        #[source]
        source: toml::Error,
    },
    /// No setting of that name.
    #[error("{place}: there is no setting {name:?}{}", hint(.nearest))]
    Unknown {
        place: String,
        name: String,
        nearest: Option<&'static str>,
    },
    /// A value that the setting cannot have.
    #[error("{place}: {name} is {expected}, not {given}")]
    Value {
        place: String,
        name: &'static str,
        expected: &'static str,
        given: String,
    },
    /// A pod that asks for less than it is given.
    #[error(
        "annotation {ANNOTATION_PREFIX}{name}: {demanded} is demanded by {by}, and a pod may only tighten it: {asked} \
         is refused"
    )]
    Loosens {
        name: &'static str,
        demanded: String,
        by: Origin,
        asked: String,
    },
    /// A pod that asks for what is not its to choose.
    #[error("annotation {ANNOTATION_PREFIX}{name}: only the node's configuration and the handler's options may set it")]
    NotForPods { name: &'static str },
    /// A configuration without its version, or with another one.
    #[error(
        "{place}: `version = {}` has to be there, as it says how the rest is read; found {found}",
        node::VERSION
    )]
    Version { place: String, found: String },
}

/// The beginning of a text that an error quotes: an annotation may have a quarter of a megabyte.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest
        .map(|name| format!("; {name:?} may be meant"))
        .unwrap_or_default()
}
