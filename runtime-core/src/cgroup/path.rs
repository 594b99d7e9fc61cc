//! `linux.cgroupsPath`: what it may be, and what it means.

use super::Error;
use super::hierarchy::{self, Hierarchy};
use super::systemd::{Scope, is_systemd};

/// Deeper paths are refused: each level would be made in ten hierarchies, and only the last is removed at the end.
const MAX_DEPTH: usize = 64;

/// The kernel's PATH_MAX, less room for the hierarchy's mount point and a file's name.
const MAX_LENGTH: usize = 3584;

/// A checked `linux.cgroupsPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CgroupsPath {
    /// Below the root of each hierarchy, without a leading slash.
    Absolute(String),
    /// Below our own cgroup in each hierarchy.
    Relative(String),
    /// Below systemd's own cgroup: a scope that systemd makes.
    Systemd(Scope),
}

impl CgroupsPath {
    /// Checks `path` as the OCI spec's "Cgroups Path" has it. One that names the root or our own cgroup itself is
    /// refused: everything in a container's cgroup is killed in the end. So is `..`, wherever it would lead.
    pub(super) fn parse(path: &str) -> Result<Self, Error> {
        let fault = |fault| Error::Path {
            path: path.chars().take(256).collect(),
            fault,
        };
        if path.len() > MAX_LENGTH {
            return Err(fault("is too long"));
        }
        if path.contains(['\0', '\n']) {
            return Err(fault("holds a NUL or a newline"));
        }
        if is_systemd(path) {
            return Scope::parse(path).map(Self::Systemd);
        }
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.contains(&"..") {
            return Err(fault("holds \"..\""));
        }
        if names.len() > MAX_DEPTH {
            return Err(fault("is more than 64 levels deep"));
        }
        if names.is_empty() {
            return Err(fault("names no cgroup of its own"));
        }
        let clean = names.join("/");
        Ok(if path.starts_with('/') {
            Self::Absolute(clean)
        } else {
            Self::Relative(clean)
        })
    }

    /// Where it is below the mount of `hierarchy`.
    pub(super) fn below(&self, hierarchy: &Hierarchy) -> Result<String, Error> {
        let join = |above: &str, path: &str| match above {
            "" => path.to_owned(),
            above => format!("{above}/{path}"),
        };
        match self {
            Self::Absolute(path) => Ok(path.clone()),
            Self::Relative(path) => match &hierarchy.own {
                Ok(own) => Ok(join(own, path)),
                Err(root) => Err(Error::OwnCgroup {
                    path: path.clone(),
                    controllers: hierarchy.controllers.join(","),
                    own: hierarchy.own_line.clone(),
                    root: root.clone(),
                }),
            },
            Self::Systemd(scope) => Ok(join(&hierarchy::of_systemd(hierarchy)?, &scope.path())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_and_told_absolute_from_relative() {
        let absolute = |path: &str| CgroupsPath::Absolute(path.into());
        assert_eq!(CgroupsPath::parse("/default/c1").unwrap(), absolute("default/c1"));
        assert_eq!(CgroupsPath::parse("//a/./b//").unwrap(), absolute("a/b"));
        assert_eq!(CgroupsPath::parse("/a.slice:b:c").unwrap(), absolute("a.slice:b:c"));
        assert_eq!(CgroupsPath::parse("a/b").unwrap(), CgroupsPath::Relative("a/b".into()));
        assert_eq!(
            CgroupsPath::parse("a:b:c").unwrap(),
            CgroupsPath::Relative("a:b:c".into())
        );
    }

    #[test]
    fn a_path_that_leaves_the_hierarchy_or_names_its_root_is_refused() {
        for path in ["/..", "/a/../b", "../x", "a/..", "/", "", ".", "//.", "/a\0b", "/a\nb"] {
            let error = CgroupsPath::parse(path).unwrap_err();
            assert!(matches!(error, Error::Path { .. }), "{path:?}: {error}");
        }
        for path in ["/a".repeat(65), format!("/{}", "a".repeat(4000))] {
            assert!(matches!(CgroupsPath::parse(&path), Err(Error::Path { .. })));
        }
    }

    #[test]
    fn the_systemd_form_is_told_from_a_path() {
        let scope = Scope::parse("system.slice:nucleus:c1").unwrap();
        assert_eq!(
            CgroupsPath::parse("system.slice:nucleus:c1").unwrap(),
            CgroupsPath::Systemd(scope)
        );
        assert!(matches!(CgroupsPath::parse("a--b.slice:x:y"), Err(Error::Path { .. })));
    }
}
