//! The values of Landlock's own rules: trees of paths, ports, scopes.
//!
//! A list says what is allowed, so fewer entries are stricter, and one that is below another's entry is covered by it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

const ANY: &str = "any";

/// Where in the container something is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trees {
    /// Everywhere.
    #[default]
    Any,
    /// At these paths and below them; those with a `-` in front need not be there.
    Only(BTreeSet<String>),
}

impl Trees {
    /// The paths; None: everywhere.
    pub fn paths(&self) -> Option<impl Iterator<Item = &str>> {
        match self {
            Self::Any => None,
            Self::Only(paths) => Some(paths.iter().map(String::as_str)),
        }
    }

    /// Whether `path` is one of them, or below one.
    pub fn covers(&self, path: &str) -> bool {
        self.paths()
            .is_none_or(|mut paths| paths.any(|tree| is_in(plain(path), plain(tree))))
    }
}

/// A list's entry without the `-` that says that it need not be there.
pub(crate) fn plain(entry: &str) -> &str {
    entry.strip_prefix('-').unwrap_or(entry)
}

/// Whether `path` is `tree` or below it, as texts.
pub(crate) fn is_in(path: &str, tree: &str) -> bool {
    match path.strip_prefix(tree) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || tree == "/",
        None => false,
    }
}

/// A path that has one way to be written.
fn is_clean(path: &str) -> bool {
    let fits = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(fits))
}

impl Value for Trees {
    const EXPECTED: &'static str =
        "\"any\", or a list of absolute paths without `.`, `..` and doubled `/`, perhaps after a `-`";

    fn parse(given: Given<'_>) -> Option<Self> {
        if given.text() == Some(ANY) {
            return Some(Self::Any);
        }
        let paths = given.list()?;
        let fits = paths.iter().all(|path| is_clean(plain(path)));
        fits.then(|| Self::Only(paths.into_iter().map(str::to_owned).collect()))
    }

    /// What both allow: of each its paths that the other covers.
    fn stricter(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, other) => other.clone(),
            (own, Self::Any) => own.clone(),
            (Self::Only(own), Self::Only(others)) => {
                let ours = own.iter().filter(|path| other.covers(path));
                let theirs = others.iter().filter(|path| self.covers(path));
                Self::Only(ours.chain(theirs).cloned().collect())
            }
        }
    }

    fn is_as_strict_as(&self, other: &Self) -> bool {
        match self.paths() {
            Some(mut paths) => paths.all(|path| other.covers(path)),
            None => *other == Self::Any,
        }
    }
}

impl fmt::Display for Trees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paths() {
            None => write!(f, "{ANY:?}"),
            Some(paths) => f.debug_list().entries(paths.map(super::shortened)).finish(),
        }
    }
}

/// Ports of TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// All of them.
    #[default]
    Any,
    /// These.
    Only(BTreeSet<u16>),
}

impl Ports {
    /// None at all.
    pub const NONE: Self = Self::Only(BTreeSet::new());
}

impl Value for Ports {
    const EXPECTED: &'static str = "\"any\", or a list of port numbers such as \"443\"";

    fn parse(given: Given<'_>) -> Option<Self> {
        if given.text() == Some(ANY) {
            return Some(Self::Any);
        }
        let ports = given.list()?.into_iter().map(|port| port.parse().ok());
        ports.collect::<Option<_>>().map(Self::Only)
    }

    fn stricter(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, other) => other.clone(),
            (own, Self::Any) => own.clone(),
            (Self::Only(own), Self::Only(other)) => Self::Only(own & other),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "{ANY:?}"),
            Self::Only(ports) => f.debug_list().entries(ports.iter().map(u16::to_string)).finish(),
        }
    }
}

/// What does not leave the domain; more of it is stricter. The names are landlock.h's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Scopes {
    pub abstract_unix_socket: bool,
    pub signal: bool,
}

impl Scopes {
    fn named(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.abstract_unix_socket, "abstract_unix_socket"),
            (self.signal, "signal"),
        ];
        all.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name)
    }
}

impl Value for Scopes {
    const EXPECTED: &'static str = "a list of \"abstract_unix_socket\" and \"signal\"";

    fn parse(given: Given<'_>) -> Option<Self> {
        let mut scopes = Self::default();
        for name in given.list()? {
            match name {
                "abstract_unix_socket" => scopes.abstract_unix_socket = true,
                "signal" => scopes.signal = true,
                _ => return None,
            }
        }
        Some(scopes)
    }

    fn stricter(&self, other: &Self) -> Self {
        Self {
            abstract_unix_socket: self.abstract_unix_socket || other.abstract_unix_socket,
            signal: self.signal || other.signal,
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.named()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees(text: &str) -> Trees {
        Trees::parse(Given::Annotation(text)).unwrap()
    }

    #[test]
    fn a_path_is_covered_by_itself_and_by_what_it_is_in() {
        for (path, tree, expected) in [
            ("/data", "/data", true),
            ("/data/a/b", "/data", true),
            ("/database", "/data", false),
            ("/", "/data", false),
            ("/data", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(is_in(path, tree), expected, "{path} in {tree}");
        }
    }

    #[test]
    fn a_list_is_tightened_by_what_it_covers_alone() {
        let (any, node) = (Trees::Any, trees("/data, /usr"));
        for (asked, fits) in [
            ("/data", true),
            ("/usr/bin,/data/a", true),
            ("", true),
            ("/", false),
            ("/data,/etc", false),
            ("-/data/a", true),
            ("-/etc", false),
            ("any", false),
        ] {
            assert_eq!(trees(asked).is_as_strict_as(&node), fits, "{asked}");
            assert!(trees(asked).is_as_strict_as(&any));
            assert!(trees(asked).stricter(&node).is_as_strict_as(&node), "{asked}");
        }
        assert_eq!(trees("/usr/bin,/etc").stricter(&node), trees("/usr/bin"));
        assert_eq!(trees("/").stricter(&node), node);
        assert!(any.is_as_strict_as(&any));
    }

    #[test]
    fn a_path_has_one_way_to_be_written() {
        for wrong in ["data", "--/a", "/data/", "/a//b", "/a/../b", "/.", "//"] {
            assert_eq!(Trees::parse(Given::Annotation(wrong)), None, "{wrong}");
        }
        assert_eq!(trees("/b,/a").to_string(), r#"["/a", "/b"]"#);
        assert_eq!(Trees::Any.to_string(), "\"any\"");
    }

    #[test]
    fn ports_are_numbers_and_fewer_of_them_are_stricter() {
        let ports = |text| Ports::parse(Given::Annotation(text));
        let two = ports("80, 443").unwrap();
        assert_eq!(two.to_string(), r#"["80", "443"]"#);
        assert!(ports("443").unwrap().is_as_strict_as(&two) && !ports("8080").unwrap().is_as_strict_as(&two));
        assert!(two.is_as_strict_as(&Ports::Any) && !Ports::Any.is_as_strict_as(&two));
        assert!(Ports::NONE.is_as_strict_as(&two));
        assert_eq!((ports("65536"), ports("http"), ports("-1")), (None, None, None));
    }

    #[test]
    fn more_scopes_are_stricter() {
        let scopes = |text| Scopes::parse(Given::Annotation(text));
        let both = scopes("signal,abstract_unix_socket").unwrap();
        assert_eq!(both.to_string(), r#"["abstract_unix_socket", "signal"]"#);
        assert!(both.is_as_strict_as(&scopes("signal").unwrap()));
        assert!(!scopes("signal").unwrap().is_as_strict_as(&both));
        assert_eq!(scopes("sockets"), None);
    }
}
