//! Which volumes are copied into memory.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

/// Where secrets are kept while a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secrets {
    /// Where kubelet put them.
    #[default]
    Mount,
    /// In memory of the container's own: Secret volumes, and what is mounted at these paths.
    Memory(BTreeSet<String>),
}

impl Value for Secrets {
    const EXPECTED: &'static str = "\"mount\", \"memory\", or a list of mount points, which means memory for these too";

    fn parse(given: Given<'_>) -> Option<Self> {
        match given.text() {
            Some("mount") => Some(Self::Mount),
            Some("memory") => Some(Self::Memory(BTreeSet::new())),
            _ => {
                let paths = given.list()?;
                let fit = |path: &&str| path.starts_with('/') && path.len() > 1 && !path.ends_with('/');
                let fits = !paths.is_empty() && paths.iter().all(fit);
                fits.then(|| Self::Memory(paths.into_iter().map(str::to_owned).collect()))
            }
        }
    }

    fn stricter(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Mount, other) => other.clone(),
            (own, Self::Mount) => own.clone(),
            (Self::Memory(own), Self::Memory(other)) => Self::Memory(own.union(other).cloned().collect()),
        }
    }
}

impl fmt::Display for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount => f.write_str("\"mount\""),
            Self::Memory(paths) if paths.is_empty() => f.write_str("\"memory\""),
            Self::Memory(paths) => f
                .debug_list()
                .entries(paths.iter().map(|path| super::shortened(path)))
                .finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Option<Secrets> {
        Secrets::parse(Given::Annotation(text))
    }

    #[test]
    fn paths_mean_memory_and_more_of_them_are_stricter() {
        let (mount, memory) = (secrets("mount").unwrap(), secrets("memory").unwrap());
        let (one, two) = (secrets("/a").unwrap(), secrets("/b, /a").unwrap());
        assert_eq!(two.to_string(), r#"["/a", "/b"]"#);
        assert!(memory.is_as_strict_as(&mount) && one.is_as_strict_as(&memory) && two.is_as_strict_as(&one));
        assert!(!mount.is_as_strict_as(&memory) && !one.is_as_strict_as(&two));
        assert_eq!(mount.stricter(&one), one);
        for text in ["", "disk", "a", "/", "/a/"] {
            assert_eq!(secrets(text), None, "{text}");
        }
    }
}
