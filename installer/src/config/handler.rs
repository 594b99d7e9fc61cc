//! The handlers that containerd learns of.

use std::str::FromStr;

use super::Version;

/// A handler of a RuntimeClass. Only what the shim can serve is in here: anything else would be a promise to the scheduler
/// that no node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The native runtime with the node's own policy.
    Nucleus,
}

/// A name that is none of a handler of this version.
#[derive(Debug, thiserror::Error)]
#[error("this version's shim serves no handler `{0}`; it serves: nucleus")]
pub struct UnknownHandler(String);

impl FromStr for Handler {
    type Err = UnknownHandler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "nucleus" => Ok(Self::Nucleus),
            _ => Err(UnknownHandler(name.to_owned())),
        }
    }
}

impl Handler {
    /// Its name in containerd and in a RuntimeClass.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nucleus => "nucleus",
        }
    }

    /// Its tables for a configuration of this version.
    pub fn toml(self, version: Version, shim: &str) -> String {
        let runtimes = format!("plugins.{}.containerd.runtimes.{}", version.plugin(), self.name());
        // Without pod_annotations containerd keeps a pod's annotations from the shim.
        format!(
            "[{runtimes}]\n  runtime_type = \"io.containerd.nucleus.v2\"\n  runtime_path = {}\n  \
             pod_annotations = [\"nucleus.dev/*\"]\n",
            quoted(shim)
        )
    }
}

/// A TOML string: a path has no control characters (it is checked), so two characters are to be escaped.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}
