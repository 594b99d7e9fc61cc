//! The handlers that containerd learns of.

use std::str::FromStr;

use super::Version;

/// A handler of a RuntimeClass. Only what the shim can serve is in here: anything else would be a promise to the
/// scheduler that no node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The native runtime with the node's own policy.
    Nucleus,
    /// The same in production mode.
    Production,
    /// gVisor's sentry.
    Gvisor,
    /// The native runtime, pods without a pause container. From containerd 2.0 on; before, it is as
    /// [`Handler::Nucleus`].
    Sandboxed,
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
#[error(
    "this version's shim serves no handler `{0}`; it serves: nucleus, nucleus-production, nucleus-gvisor, \
     nucleus-sandboxed"
)]
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
    pub const ALL: [Self; 4] = [Self::Nucleus, Self::Production, Self::Gvisor, Self::Sandboxed];

    /// Its name in containerd and in a RuntimeClass.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nucleus => "nucleus",
            Self::Production => "nucleus-production",
            Self::Gvisor => "nucleus-gvisor",
            Self::Sandboxed => "nucleus-sandboxed",
        }
    }

    /// What its policy demands beyond the node's: a file, as containerd 1.6 hands on its path and nothing else.
    pub fn policy(self, runsc: &Runsc) -> Option<String> {
        match self {
            Self::Nucleus | Self::Sandboxed => None,
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
        matches!(self, Self::Production | Self::Gvisor)
    }

    /// Its tables for a configuration of this version, for files below this directory of the host.
    ///
    /// With `named_by_path` the runtime's type is the shim's path: containerd 1.6 reads `runtime_path` and does not go
    /// by it, nor does any version for a sandbox of the shim's.
    pub fn toml(self, version: Version, directory: &str, named_by_path: bool) -> String {
        let runtimes = format!("plugins.{}.containerd.runtimes.{}", version.plugin(), self.name());
        // Without pod_annotations containerd keeps a pod's annotations from the shim.
        let annotations = match self {
            Self::Gvisor => "\"nucleus.dev/*\", \"dev.gvisor.spec.mount.*\"",
            Self::Nucleus | Self::Production | Self::Sandboxed => "\"nucleus.dev/*\"",
        };
        let shim = quoted(&shim_path(directory));
        let which = if named_by_path || self == Self::Sandboxed {
            format!("runtime_type = {shim}")
        } else {
            format!("runtime_type = \"io.containerd.nucleus.v2\"\n  runtime_path = {shim}")
        };
        let mut text = format!("[{runtimes}]\n  {which}\n  pod_annotations = [{annotations}]\n");
        if self == Self::Sandboxed {
            text.push_str("  sandboxer = \"shim\"\n  disable_pause_image_pull = true\n");
        }
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
    fn a_sandbox_of_the_shim_s_names_the_shim_by_its_path() {
        let text = Handler::Sandboxed.toml(Version::V3, "/opt/nucleus", false);
        let read: toml_edit::DocumentMut = text.parse().unwrap();
        let handler = &read["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["nucleus-sandboxed"];
        assert_eq!(
            handler["runtime_type"].as_str(),
            Some("/opt/nucleus/bin/containerd-shim-nucleus-v2")
        );
        assert_eq!(handler["sandboxer"].as_str(), Some("shim"));
        assert!(handler.get("runtime_path").is_none() && handler.get("options").is_none());
    }

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
