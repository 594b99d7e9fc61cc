//! Settings that say which files of the node count, and what has to be in them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

const PREFIX: &str = "sha256:";

/// Names of files, and the SHA-256 that each has to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins(pub BTreeMap<String, String>);

impl Value for Pins {
    const EXPECTED: &'static str = "a list of `name=sha256:` and 64 hex digits";

    fn parse(given: Given<'_>) -> Option<Self> {
        let pin = |entry: &str| {
            let (name, digest) = entry.split_once('=')?;
            let digest = digest.strip_prefix(PREFIX)?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let fits = !name.is_empty()
                && name.bytes().all(is_name)
                && digest.len() == 64
                && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| (name.to_owned(), digest.to_ascii_lowercase()))
        };
        given.list()?.into_iter().map(pin).collect::<Option<_>>().map(Self)
    }

    /// Pods have no say, and the node's own choice needs no comparison.
    fn stricter(&self, other: &Self) -> Self {
        other.clone()
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|(name, digest)| format!("{name}={PREFIX}{digest}"));
        f.debug_list().entries(entries).finish()
    }
}

/// A directory of the node's, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory(pub String);

impl Value for Directory {
    const EXPECTED: &'static str = "an absolute path, or \"\" for none";

    fn parse(given: Given<'_>) -> Option<Self> {
        let text = given.text()?;
        (text.is_empty() || text.starts_with('/')).then(|| Self(text.to_owned()))
    }

    /// As for [`Pins`].
    fn stricter(&self, other: &Self) -> Self {
        other.clone()
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::toml;
    use super::*;

    #[test]
    fn a_pin_has_a_name_that_is_no_path_and_a_digest() {
        let pins = |entry: String| Pins::parse(Given::Toml(&toml::Value::List(vec![entry])));
        let digest = "Ab".repeat(32);
        let parsed = pins(format!("web=sha256:{digest}")).unwrap();
        assert_eq!(parsed.0["web"], "ab".repeat(32));
        assert_eq!(parsed.to_string(), format!("[\"web=sha256:{}\"]", "ab".repeat(32)));
        for wrong in ["web", "web=abc", "=sha256:", "../web=sha256:", "a/b=sha256:"] {
            let entry = if wrong.ends_with(':') {
                format!("{wrong}{digest}")
            } else {
                wrong.to_owned()
            };
            assert_eq!(pins(entry), None, "{wrong}");
        }
        assert_eq!(pins(format!("web=sha256:{}", "xy".repeat(32))), None);
        let directory = |text: &str| Directory::parse(Given::Toml(&toml::Value::Text(text.into())));
        assert_eq!(directory("profiles"), None);
        assert!(directory("/etc/x").is_some() && directory("").is_some());
    }
}
