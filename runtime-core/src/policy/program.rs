//! Settings that say which program is to be run: where it is, and what it has to be.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::toml;
use super::values::{Given, Value};

/// Where a program may be: absolute paths, of which the first that exists is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths(pub Vec<String>);

impl Value for Paths {
    const EXPECTED: &'static str = "an absolute path, or a list of them";

    fn parse(given: Given<'_>) -> Option<Self> {
        let paths = match given {
            Given::Toml(toml::Value::Text(path)) => vec![path.as_str()],
            given => given.list()?,
        };
        let fit = !paths.is_empty() && paths.iter().all(|path| path.starts_with('/'));
        fit.then(|| Self(paths.into_iter().map(str::to_owned).collect()))
    }

    /// Pods have no say, and the node's own choice needs no comparison.
    fn stricter(&self, other: &Self) -> Self {
        other.clone()
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

/// What a file's content has to be, if that is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub Option<String>);

impl Value for Digest {
    const EXPECTED: &'static str = "64 hex digits, perhaps after \"sha256:\", or \"\" for any";

    fn parse(given: Given<'_>) -> Option<Self> {
        let text = given.text()?;
        match text.strip_prefix("sha256:").unwrap_or(text) {
            _ if text.is_empty() => Some(Self(None)),
            text if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Some(Self(Some(text.to_ascii_lowercase())))
            }
            _ => None,
        }
    }

    fn stricter(&self, other: &Self) -> Self {
        if other.0.is_some() { other.clone() } else { self.clone() }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_deref().unwrap_or_default())
    }
}

/// More of a program's flags, each with its value. Which of them it may be given is not known here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags(pub Vec<(String, String)>);

impl Value for Flags {
    const EXPECTED: &'static str = "a list of `name=value`, names without dashes in front";

    fn parse(given: Given<'_>) -> Option<Self> {
        let flag = |entry: &str| {
            let (name, value) = entry.split_once('=')?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let fits = !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_name) && !value.contains('\0');
            fits.then(|| (name.to_owned(), value.to_owned()))
        };
        given.list()?.into_iter().map(flag).collect::<Option<_>>().map(Self)
    }

    /// As for [`Paths`].
    fn stricter(&self, other: &Self) -> Self {
        other.clone()
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        f.debug_list().entries(entries).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> toml::Value {
        toml::Value::Text(text.into())
    }

    #[test]
    fn a_path_is_absolute_and_a_digest_64_hex_digits() {
        let paths = |value: &toml::Value| Paths::parse(Given::Toml(value)).map(|paths| paths.0);
        assert_eq!(paths(&text("/a")), Some(vec!["/a".to_owned()]));
        assert_eq!(
            paths(&toml::Value::List(vec!["/a".into(), "/b".into()])).map(|list| list.len()),
            Some(2)
        );
        assert_eq!(paths(&text("runsc")), None);
        assert_eq!(paths(&toml::Value::List(vec![])), None);
        let digest = |value: &str| Digest::parse(Given::Toml(&text(value)));
        assert_eq!(digest(""), Some(Digest(None)));
        assert_eq!(digest(&"AB".repeat(32)), Some(Digest(Some("ab".repeat(32)))));
        assert_eq!(
            digest(&format!("sha256:{}", "01".repeat(32))),
            Some(Digest(Some("01".repeat(32))))
        );
        assert_eq!(digest("sha256:"), None, "not any");
        assert_eq!(digest("abc"), None);
        assert_eq!(digest(&"xy".repeat(32)), None);
    }

    #[test]
    fn a_flag_has_a_value_and_no_dashes() {
        let flags = |list: &[&str]| {
            let list = list.iter().map(|&flag| flag.to_owned()).collect();
            Flags::parse(Given::Toml(&toml::Value::List(list))).map(|flags| flags.to_string())
        };
        assert_eq!(
            flags(&["dcache=100", "a=b=c"]).as_deref(),
            Some(r#"["dcache=100", "a=b=c"]"#)
        );
        assert_eq!(flags(&[]).as_deref(), Some("[]"));
        for wrong in ["--dcache=100", "dcache", "=1", "a b=1", "a=\0"] {
            assert_eq!(flags(&[wrong]), None, "{wrong}");
        }
    }
}
