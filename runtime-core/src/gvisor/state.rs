//! Where a sandbox keeps what is on disk: `/run/nucleus/gvisor/<namespace>/<sandbox>`, for root alone.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Error, file};

/// Above every namespace's directory.
const ROOT: &str = "/run/nucleus/gvisor";

/// The directories of one sandbox. runsc keeps its own files and the control socket in the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// That of `sandbox` in containerd's `namespace`; whether it exists or not.
    pub fn of(namespace: &str, sandbox: &str) -> Result<Self, Error> {
        for name in [namespace, sandbox] {
            if name.is_empty() || name.len() > 100 || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(Error::State {
                    id: sandbox.to_owned(),
                    operation: "have files",
                    reason: "a namespace or sandbox of this name cannot be a directory",
                });
            }
        }
        Ok(Self(Path::new(ROOT).join(namespace).join(sandbox)))
    }

    /// What `--root` is for runsc.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The bundle that runsc sees of container `id`.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.0.join("bundles").join(id)
    }

    /// Where the mounts' sources appear, in the mount namespace of runsc's gofer alone.
    pub fn mounts(&self) -> PathBuf {
        self.0.join("mounts")
    }

    /// Makes it, mode 0700. What is there from before (a sandbox of this name whose shim was never cleaned up after) goes.
    pub fn make(&self) -> Result<(), Error> {
        let mut above: Vec<&Path> = self.0.ancestors().skip(1).collect();
        above.retain(|path| path.starts_with("/run/nucleus"));
        for path in above.into_iter().rev() {
            make(path)?;
        }
        self.remove()?;
        for path in [self.0.clone(), self.0.join("bundles"), self.mounts()] {
            make(&path)?;
        }
        Ok(())
    }

    /// Removes it with all that is in it; no error where there is none.
    pub fn remove(&self) -> Result<(), Error> {
        remove_tree(&self.0).map_err(file("removing", &self.0))
    }

    /// Removes what one container of a sandbox that goes on has here.
    pub fn remove_container(&self, sandbox: &str, id: &str) -> Result<(), Error> {
        let bundle = self.bundle(id);
        remove_tree(&bundle).map_err(file("removing", &bundle))?;
        for end in ["state", "lock"] {
            let path = self.0.join(format!("{id}_sandbox:{sandbox}.{end}"));
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file("removing", path)(source)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes one directory for root alone; one that is there has to be root's, and nobody else's to write.
pub fn make(path: &Path) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(file("making", path)(source)),
        _ => {}
    }
    let found = std::fs::symlink_metadata(path).map_err(file("looking at", path))?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 {
        Ok(())
    } else {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "not a directory of root's alone");
        Err(file("using", path)(source))
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_path_has_no_directory() {
        for (namespace, sandbox) in [("k8s.io", ".."), ("..", "a"), ("a/b", "c"), ("a", ""), ("a", "b/../c")] {
            assert!(Directory::of(namespace, sandbox).is_err(), "{namespace} {sandbox}");
        }
        let directory = Directory::of("k8s.io", "p1").unwrap();
        assert_eq!(directory.path(), Path::new("/run/nucleus/gvisor/k8s.io/p1"));
    }
}
