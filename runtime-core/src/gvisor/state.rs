//! Where a sandbox keeps what is on disk: `/run/nucleus/gvisor/<namespace>/<sandbox>`, for root alone.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::create::write_file;
use super::releases::Releases;
use super::{Error, file};

/// How often others may take a directory away from under us.
const MOST_ATTEMPTS: u32 = 100;

/// In a sandbox's directory: the files in volumes of its pod, each with a NUL between it and the next.
const FILESTORES: &str = "filestores";

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

    /// Where the debug logs of this sandbox are, `above` all of them.
    pub fn logs(&self, above: &Path) -> PathBuf {
        let own = self.0.strip_prefix(ROOT).unwrap_or(&self.0);
        above.join(own)
    }

    /// Makes the directory of the debug logs; it stays when the sandbox goes.
    pub fn make_logs(&self, above: &Path) -> Result<(), Error> {
        let logs = self.logs(above);
        make_from(above, &logs).map_err(|source| Error::Logs {
            path: logs,
            source: Box::new(source),
        })
    }

    /// Makes it, mode 0700. What is there from before (a sandbox of this name whose shim was never cleaned up after)
    /// goes.
    pub fn make(&self) -> Result<(), Error> {
        remove_tree(&self.0).map_err(file("removing", &self.0))?;
        for attempt in 1.. {
            match self.make_with_those_above() {
                // Between two of these steps the namespace's last other sandbox went, and took their directory along.
                Err(Error::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < MOST_ATTEMPTS => {}
                made => {
                    made?;
                    break;
                }
            }
        }
        for path in [self.0.join("bundles"), self.mounts()] {
            make(&path)?;
        }
        Ok(())
    }

    /// Writes down the files that the sentry will keep volumes in, which go with the sandbox.
    pub fn keep(&self, filestores: &[PathBuf]) -> Result<(), Error> {
        if filestores.is_empty() {
            return Ok(());
        }
        let path = self.0.join(FILESTORES);
        let text = filestores.iter().map(|path| path.as_os_str().as_bytes());
        write_file(&path, &text.collect::<Vec<_>>().join(&0)).map_err(file("writing", path))
    }

    fn make_with_those_above(&self) -> Result<(), Error> {
        make_from(Path::new("/run/nucleus"), &self.0)
    }

    /// Removes it with all that is in it, and the namespace's directory with the last one; no error where there is
    /// none.
    pub fn remove(&self) -> Result<(), Error> {
        remove(&self.0)
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

/// What is remembered of runscs, beside the namespaces' directories.
pub fn releases() -> Releases {
    Releases::within(Path::new(ROOT))
}

/// Makes the directory that is above all.
pub fn make_root() -> Result<(), Error> {
    make_from(Path::new("/run/nucleus"), Path::new(ROOT))
}

/// Makes `last` and those above it, from `first` on.
fn make_from(first: &Path, last: &Path) -> Result<(), Error> {
    let mut paths: Vec<&Path> = last.ancestors().take_while(|path| path.starts_with(first)).collect();
    paths.reverse();
    paths.into_iter().try_for_each(make)
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

/// Removes a sandbox's directory, and that of its namespace where nothing is left in it.
pub fn remove(path: &Path) -> Result<(), Error> {
    let filestores = remove_filestores(&path.join(FILESTORES));
    remove_tree(path).map_err(file("removing", path))?;
    if let Some(namespace) = path.parent() {
        // Others are there: that is no error. Anything else the next one meets, and tells.
        let _ = std::fs::remove_dir(namespace);
    }
    filestores
}

/// Removes the files that a sentry kept volumes in, as far as the pod's directory is still there.
fn remove_filestores(list: &Path) -> Result<(), Error> {
    let text = match std::fs::read(list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("reading", list)(error)),
    };
    let mut outcome = Ok(());
    for name in text.split(|&byte| byte == 0) {
        let path = Path::new(OsStr::from_bytes(name));
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(file("removing", path)(error)),
            _ => {}
        }
    }
    outcome
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
        assert_eq!(
            directory.logs(Path::new("/var/log/g")),
            Path::new("/var/log/g/k8s.io/p1")
        );
    }
}
