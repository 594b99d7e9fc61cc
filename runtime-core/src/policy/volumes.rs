//! What read-only volumes have to be.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

const SEPARATOR: &str = "=sha256:";

/// Digests of volumes, by their names or by the paths at which they are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDigests(pub BTreeMap<String, String>);

impl VolumeDigests {
    /// One more, as an annotation of its own says it: the volume is part of the annotation's name.
    pub(super) fn add(&mut self, volume: &str, digest: &str) -> Option<()> {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        let (name, digest) = entry(&format!("{volume}{SEPARATOR}{digest}"))?;
        let before = self.0.entry(name).or_insert_with(|| digest.clone());
        (*before == digest).then_some(())
    }
}

fn entry(text: &str) -> Option<(String, String)> {
    let (name, digest) = text.rsplit_once(SEPARATOR)?;
    let is_path = name.starts_with('/') && name.len() > 1 && !name.ends_with('/');
    let is_name = !name.is_empty() && !name.contains('/') && !matches!(name, "." | "..");
    let fits = (is_path || is_name) && digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| (name.to_owned(), digest.to_ascii_lowercase()))
}

impl Value for VolumeDigests {
    const EXPECTED: &'static str = "a list of `volume=sha256:` and 64 hex digits";

    fn parse(given: Given<'_>) -> Option<Self> {
        let mut found = Self::default();
        for text in given.list()? {
            let (name, digest) = entry(text)?;
            if found.0.insert(name, digest).is_some() {
                return None;
            }
        }
        Some(found)
    }

    /// All of both. Where they contradict each other `other` counts, so that neither is as strict as the other.
    fn stricter(&self, other: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(other.0.clone());
        Self(all)
    }
}

impl fmt::Display for VolumeDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter();
        f.debug_list()
            .entries(entries.map(|(name, digest)| format!("{}{SEPARATOR}{digest}", super::shortened(name))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(text: &str) -> Option<VolumeDigests> {
        VolumeDigests::parse(Given::Annotation(text))
    }

    #[test]
    fn a_volume_has_a_name_or_a_path_and_one_digest() {
        let (one, two) = ("AB".repeat(32), "01".repeat(32));
        let both = digests(&format!("models=sha256:{one}, /etc/app=sha256:{two}")).unwrap();
        assert_eq!(both.0["models"], "ab".repeat(32));
        assert_eq!(both.0["/etc/app"], two);
        let mut single = VolumeDigests::default();
        single.add("models", &format!("sha256:{one}")).unwrap();
        assert!(single.add("models", &two).is_none(), "two digests for one volume");
        assert!(both.is_as_strict_as(&single) && !single.is_as_strict_as(&both));
        let other = digests(&format!("models=sha256:{two}")).unwrap();
        assert!(!other.is_as_strict_as(&single) && !single.is_as_strict_as(&other));
        for wrong in ["", "/", "a/b", "..", "/a/"] {
            assert_eq!(digests(&format!("{wrong}=sha256:{two}")), None, "{wrong}");
        }
        assert_eq!(digests("models"), None);
        assert_eq!(digests("models=sha256:ab"), None);
        assert_eq!(digests(&format!("a=sha256:{one},a=sha256:{one}")), None);
    }
}
