//! `linux.cgroupsPath`: what it may be, and what it means.

use super::Error;

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
}

impl CgroupsPath {
    /// Checks `path` as the OCI spec's "Cgroups Path" has it. One that names the root or our own cgroup itself is refused:
    /// everything in a container's cgroup is killed in the end. So is `..`, wherever it would lead.
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
            return Err(Error::SystemdUnsupported { path: path.into() });
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
}

/// Whether it is `slice:prefix:name`, as the systemd driver has it.
fn is_systemd(path: &str) -> bool {
    let mut parts = path.split(':');
    let slice = parts.next().unwrap_or_default();
    parts.count() == 2 && !path.contains('/') && (slice.is_empty() || slice.ends_with(".slice"))
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
    fn the_systemd_form_is_refused_by_name() {
        for path in ["system.slice:nucleus:c1", ":cri-containerd:c1"] {
            let error = CgroupsPath::parse(path).unwrap_err();
            assert!(
                error.to_string().contains("systemd driver is not supported yet"),
                "{error}"
            );
        }
    }
}
