//! The `shim_cgroup` option: the shim's own place, beside its containers'.

use std::io;
use std::path::{Path, PathBuf};

/// Why the shim could not be placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path would leave the hierarchy.
    #[error("shim_cgroup {path:?} has a component ..")]
    Escape {
        /// As the option gives it.
        path: String,
    },
    /// No hierarchy has it.
    #[error("there is no cgroup {path}")]
    Missing {
        /// As the option gives it.
        path: String,
    },
    /// The kernel refuses.
    #[error("write {file}")]
    Write {
        /// The file.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Moves process `pid` to cgroup `path` in each hierarchy that has one there.
pub fn place(pid: u32, path: &str) -> Result<(), Error> {
    place_below(Path::new("/sys/fs/cgroup"), pid, path)
}

fn place_below(mounts: &Path, pid: u32, path: &str) -> Result<(), Error> {
    let relative = Path::new(path.trim_start_matches('/'));
    if relative
        .components()
        .any(|component| matches!(component, std::path::Component::ParentDir))
    {
        return Err(Error::Escape { path: path.into() });
    }
    let mut placed = false;
    for mount in hierarchies(mounts) {
        let file = mount.join(relative).join("cgroup.procs");
        match std::fs::OpenOptions::new().write(true).open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => {
                opened
                    .and_then(|mut file| io::Write::write_all(&mut file, pid.to_string().as_bytes()))
                    .map_err(|source| Error::Write {
                        file: file.display().to_string(),
                        source,
                    })?;
                placed = true;
            }
        }
    }
    if placed {
        Ok(())
    } else {
        Err(Error::Missing { path: path.into() })
    }
}

/// The mount points of cgroup v2 or of each v1 hierarchy (symbolic links such as `cpu` name one of them again).
fn hierarchies(mounts: &Path) -> Vec<PathBuf> {
    if mounts.join("cgroup.controllers").exists() {
        return vec![mounts.to_owned()];
    }
    let entries = std::fs::read_dir(mounts).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_is_placed_in_each_hierarchy_that_has_the_cgroup() {
        let mounts = tempfile::tempdir().unwrap();
        for (hierarchy, has) in [("memory", true), ("cpu,cpuacct", true), ("pids", false)] {
            let cgroup = mounts.path().join(hierarchy).join("shims");
            std::fs::create_dir_all(if has { &cgroup } else { mounts.path() }).unwrap();
            if has {
                std::fs::write(cgroup.join("cgroup.procs"), "").unwrap();
            }
        }
        place_below(mounts.path(), 42, "/shims").unwrap();
        let procs = |hierarchy: &str| std::fs::read_to_string(mounts.path().join(hierarchy).join("shims/cgroup.procs"));
        assert_eq!(procs("memory").unwrap(), "42");
        assert_eq!(procs("cpu,cpuacct").unwrap(), "42");
    }

    #[test]
    fn a_cgroup_that_does_not_exist_is_an_error() {
        let mounts = tempfile::tempdir().unwrap();
        let error = place_below(mounts.path(), 42, "/shims").unwrap_err();
        assert_eq!(error.to_string(), "there is no cgroup /shims");
    }

    #[test]
    fn the_path_cannot_leave_the_hierarchy() {
        let mounts = tempfile::tempdir().unwrap();
        assert!(matches!(
            place_below(mounts.path(), 42, "/a/../../b"),
            Err(Error::Escape { .. })
        ));
    }
}
