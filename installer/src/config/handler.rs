//! The handlers that containerd learns of.

use std::str::FromStr;

use super::Version;

/// A handler of a RuntimeClass. Only what the shim can serve is in here: anything else would be a promise to the scheduler
/// that no node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The native runtime with the node's own policy.
    Nucleus,
    /// The same in production mode.
    Production,
    /// gVisor's sentry.
    Gvisor,
}

/// The runsc that the handler `nucleus-gvisor` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runsc {
    /// Where it is on the host.
    pub path: String,
    /// What it has to be, as 64 hex digits.
    pub sha256: Option<String>,
}

impl Default for Runsc {
    fn default() -> Self {
        Self {
            path: "/usr/local/bin/runsc".to_owned(),
            sha256: None,
        }
    }
}

/// A name that is none of a handler of this version.
#[derive(Debug, thiserror::Error)]
#[error("this version's shim serves no handler `{0}`; it serves: nucleus, nucleus-production, nucleus-gvisor")]
pub struct UnknownHandler(String);

impl FromStr for Handler {
    type Err = UnknownHandler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|handler| handler.name() == name);
        found.ok_or_else(|| UnknownHandler(name.to_owned()))
    }
}

impl Handler {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nucleus, Self::Production, Self::Gvisor];

    /// Its name in containerd and in a RuntimeClass.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nucleus => "nucleus",
            Self::Production => "nucleus-production",
            Self::Gvisor => "nucleus-gvisor",
        }
    }

    /// What its policy demands beyond the node's: a file, as containerd 1.6 hands on its path and nothing else.
    pub fn policy(self, runsc: &Runsc) -> Option<String> {
        match self {
            Self::Nucleus => None,
            Self::Production => {
                Some("# The policy of the handler nucleus-production.\nmode = \"production\"\n".to_owned())
            }
            Self::Gvisor => {
                let path = quoted(&runsc.path);
                let pin = runsc
                    .sha256
                    .as_deref()
                    .map(|hash| format!("sha256 = {}\n", quoted(hash)));
                Some(format!(
                    "# The policy of the handler nucleus-gvisor.\nruntime = \"gvisor\"\n\n[gvisor]\npath = {path}\n{}",
                    pin.unwrap_or_default()
                ))
            }
        }
    }

    /// Whether it has one.
    fn has_policy(self) -> bool {
        self != Self::Nucleus
    }

    /// Its tables for a configuration of this version, for files below this directory of the host.
    ///
    /// With `named_by_path` the runtime's type is the shim's path: containerd 1.6 reads `runtime_path` and does not go by it.
    pub fn toml(self, version: Version, directory: &str, named_by_path: bool) -> String {
        let runtimes = format!("plugins.{}.containerd.runtimes.{}", version.plugin(), self.name());
        // Without pod_annotations containerd keeps a pod's annotations from the shim.
        let shim = quoted(&shim_path(directory));
        let which = if named_by_path {
            format!("runtime_type = {shim}")
        } else {
            format!("runtime_type = \"io.containerd.nucleus.v2\"\n  runtime_path = {shim}")
        };
        let mut text = format!("[{runtimes}]\n  {which}\n  pod_annotations = [\"nucleus.dev/*\"]\n");
        if self.has_policy() {
            let path = quoted(&self.policy_path(directory));
            text.push_str(&format!("  [{runtimes}.options]\n    ConfigPath = {path}\n"));
        }
        text
    }

    /// Where its policy is, below this directory of the host.
    pub fn policy_path(self, directory: &str) -> String {
        format!("{directory}/etc/{}.toml", self.name())
    }
}

/// Where the shim is, below this directory of the host.
pub fn shim_path(directory: &str) -> String {
    format!("{directory}/bin/containerd-shim-nucleus-v2")
}

/// A TOML string: a path has no control characters (it is checked), so two characters are to be escaped.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_gvisor_names_runsc_and_its_hash_where_there_is_one() {
        let runsc = Runsc {
            path: "/opt/gvisor/run\"sc".to_owned(),
            sha256: Some("ab".repeat(32)),
        };
        let text = Handler::Gvisor.policy(&runsc).unwrap();
        let read: toml_edit::DocumentMut = text.parse().unwrap();
        assert_eq!(read["runtime"].as_str(), Some("gvisor"));
        assert_eq!(read["gvisor"]["path"].as_str(), Some(runsc.path.as_str()));
        assert_eq!(read["gvisor"]["sha256"].as_str(), runsc.sha256.as_deref());
        let without = Handler::Gvisor.policy(&Runsc::default()).unwrap();
        assert!(
            without.contains("/usr/local/bin/runsc") && !without.contains("sha256"),
            "{without}"
        );
    }
}
