//! `slice:prefix:name`, as clients of the systemd driver write a cgroup: pure.

use crate::cgroup::Error;

/// systemd's own limit (UNIT_NAME_MAX).
const MAX_LENGTH: usize = 255;

/// A scope and the slice that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Scope {
    /// `kubepods-burstable-podX.slice`; `-.slice` is the root.
    pub slice: String,
    /// `cri-containerd-ID.scope`.
    pub unit: String,
}

/// Whether `path` has the form `slice:prefix:name`.
pub(crate) fn is_systemd(path: &str) -> bool {
    let mut parts = path.split(':');
    let slice = parts.next().unwrap_or_default();
    parts.count() == 2 && !path.contains('/') && (slice.is_empty() || slice.ends_with(".slice"))
}

/// The cgroup of a slice below systemd's root, without a leading slash.
pub(in crate::cgroup) fn slice_path(slice: &str) -> Result<String, Error> {
    let scope = Scope::parse(&format!("{slice}::unit"))?;
    let path = scope.path();
    Ok(path
        .strip_suffix(&format!("/{}", scope.unit))
        .unwrap_or_default()
        .to_owned())
}

impl Scope {
    /// Reads `path`, which has that form. Without a slice it is system.slice; without a prefix the name stands alone.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let fault = |fault| Error::Path {
            path: path.chars().take(256).collect(),
            fault,
        };
        let mut parts = path.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (slice, prefix, name) = (part(), part(), part());
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        if name.is_empty() {
            return Err(fault("has no name behind its second colon"));
        }
        if name.ends_with(".slice") {
            return Err(fault("names a slice: a container is in a scope"));
        }
        let unit = if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        let valid = |unit: &str| {
            unit.len() <= MAX_LENGTH
                && unit
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
        };
        if !valid(slice) || !valid(&unit) {
            return Err(fault("is no name of a systemd unit"));
        }
        let slice = Self {
            slice: slice.to_owned(),
            unit,
        };
        slice.check_slice().map_err(fault)?;
        Ok(slice)
    }

    fn check_slice(&self) -> Result<(), &'static str> {
        let words = self.slice.strip_suffix(".slice").unwrap_or_default();
        match words {
            "-" => Ok(()),
            _ if words.split('-').any(str::is_empty) => Err("has a slice with an empty word between its dashes"),
            _ => Ok(()),
        }
    }

    /// Its cgroup below systemd's root, without a leading slash: `a-b.slice` is `a.slice/a-b.slice` (systemd.slice(5)).
    pub fn path(&self) -> String {
        let mut path = String::new();
        let words = self.slice.strip_suffix(".slice").unwrap_or_default();
        if words != "-" {
            let ends = words.match_indices('-').map(|(at, _)| at).chain([words.len()]);
            for end in ends {
                path += &format!("{}.slice/", &words[..end]);
            }
        }
        path + &self.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_path_of_slices() {
        for (text, path) in [
            (":cri-containerd:c1", "system.slice/cri-containerd-c1.scope"),
            ("user.slice::c1", "user.slice/c1.scope"),
            ("-.slice:nucleus:c1", "nucleus-c1.scope"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
        ] {
            assert!(is_systemd(text));
            assert_eq!(Scope::parse(text).unwrap().path(), path);
        }
    }

    #[test]
    fn a_pod_s_slice_is_a_path_as_well() {
        assert_eq!(
            slice_path("kubepods-podx.slice").unwrap(),
            "kubepods.slice/kubepods-podx.slice"
        );
        assert!(slice_path("a--b.slice").is_err());
    }

    #[test]
    fn only_three_parts_with_a_slice_first_are_systemd_s() {
        for text in [
            "/a.slice:b:c",
            "a:b:c",
            "a.slice:b",
            "a.slice:b:c:d",
            "a.slice/b:c:d",
            "/default/c1",
        ] {
            assert!(!is_systemd(text), "{text}");
        }
    }

    #[test]
    fn a_name_that_systemd_would_not_take_is_refused() {
        for (text, part) in [
            ("a--b.slice:p:c", "empty word"),
            ("-a.slice:p:c", "empty word"),
            (".slice:p:c", "empty word"),
            (":p:", "no name"),
            (":p:c.slice", "names a slice"),
            (":p:c d", "no name of a systemd unit"),
            (":p:\u{e4}", "no name of a systemd unit"),
        ] {
            let error = Scope::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(Scope::parse(&format!(":p:{}", "c".repeat(300))).is_err());
    }
}
