//! One cgroup in one hierarchy: a directory and the files in it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::hierarchy::Hierarchy;

/// What `mkdir` is asked for; the shim's umask must not hide the files from users in the container.
const MODE: Mode = Mode::from_raw_mode(0o755);

/// A cgroup directory, by its path below the hierarchy's mount.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub hierarchy: Arc<Hierarchy>,
    /// Without a leading slash; never empty.
    pub path: String,
}

/// What [`Directory::make`] found.
#[derive(Debug)]
pub(super) enum Made {
    /// These are new, the outermost first; the last is the cgroup itself.
    New(Vec<String>),
    /// It was there.
    Existed,
}

impl Directory {
    /// The full path, for messages and records.
    pub fn full(&self) -> PathBuf {
        self.hierarchy.mount_point.join(&self.path)
    }

    /// The full path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.full().join(name)
    }

    /// A cgroup below.
    pub fn child(&self, name: &str) -> Self {
        Self {
            hierarchy: self.hierarchy.clone(),
            path: format!("{}/{name}", self.path),
        }
    }

    /// The cgroup above; None where that is the hierarchy's root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.path.rsplit_once('/')?;
        Some(Self {
            hierarchy: self.hierarchy.clone(),
            path: parent.into(),
        })
    }

    fn error(&self, operation: &'static str, name: &str, source: Errno) -> Error {
        Error::Io {
            operation,
            path: if name.is_empty() { self.full() } else { self.file(name) },
            source,
        }
    }

    /// Opens one of its files; no name: the directory itself.
    pub fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        self.try_open(name, flags)
            .map_err(|source| self.error("open", name, source))
    }

    pub fn try_open(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if name.is_empty() {
            return rustix::fs::openat(&self.hierarchy.root, self.path.as_str(), flags, Mode::empty());
        }
        rustix::fs::openat(
            &self.hierarchy.root,
            format!("{}/{name}", self.path),
            flags,
            Mode::empty(),
        )
    }

    /// A file's text.
    pub fn read(&self, name: &str) -> Result<String, Error> {
        self.try_read(name).map_err(|source| self.error("read", name, source))
    }

    /// A file's text; None where the kernel has no such file, or the cgroup is gone.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>, Error> {
        match self.try_read(name) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(error) => Err(self.error("read", name, error)),
        }
    }

    pub fn try_read(&self, name: &str) -> rustix::io::Result<String> {
        read_all(&self.try_open(name, OFlags::RDONLY)?)
    }

    /// A file's text in the hierarchy's root.
    pub fn read_of_root(&self, name: &str) -> Result<String, Error> {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            read_all(&rustix::fs::openat(&self.hierarchy.root, name, flags, Mode::empty())?)
        };
        let path = self.hierarchy.mount_point.join(name);
        read().map_err(|source| Error::Io {
            operation: "read",
            path,
            source,
        })
    }

    /// Writes `value` with one write(2), as cgroup files want it.
    pub fn write(&self, name: &str, value: &str) -> Result<(), Error> {
        self.try_write(name, value)
            .map_err(|source| self.write_error(name, value, source))
    }

    pub fn try_write(&self, name: &str, value: &str) -> rustix::io::Result<()> {
        // O_TRUNC means nothing to cgroupfs, and lets the tests' plain files be overwritten.
        let file = self.try_open(name, OFlags::WRONLY | OFlags::TRUNC)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }

    pub fn write_error(&self, name: &str, value: &str, source: Errno) -> Error {
        Error::Write {
            file: self.file(name),
            value: value.into(),
            source,
        }
    }

    /// Whether it, or one of its files, is there.
    pub fn has(&self, name: &str) -> bool {
        let path = if name.is_empty() {
            self.path.clone()
        } else {
            format!("{}/{name}", self.path)
        };
        rustix::fs::statat(&self.hierarchy.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes it, and what is missing above it.
    pub fn make(&self) -> Result<Made, Error> {
        let mut new = Vec::new();
        match self.make_all(&self.path, &mut new) {
            Ok(true) => Ok(Made::New(new)),
            Ok(false) => Ok(Made::Existed),
            Err(source) => {
                self.unmake(&new);
                Err(self.error("make", "", source))
            }
        }
    }

    /// Takes back what [`Directory::make`] made, as far as it is still empty.
    pub fn unmake(&self, made: &[String]) {
        for path in made.iter().rev() {
            if rustix::fs::unlinkat(&self.hierarchy.root, path.as_str(), AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }

    fn make_all(&self, path: &str, new: &mut Vec<String>) -> rustix::io::Result<bool> {
        let root = &self.hierarchy.root;
        match rustix::fs::mkdirat(root, path, MODE) {
            Ok(()) => {
                new.push(path.into());
                let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)?;
                if stat.st_mode & 0o777 != MODE.as_raw_mode() {
                    rustix::fs::chmodat(root, path, MODE, AtFlags::empty())?;
                }
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::NOENT) => match path.rsplit_once('/') {
                Some((parent, _)) => {
                    self.make_all(parent, new)?;
                    self.make_all(path, new)
                }
                None => Err(Errno::NOENT),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes `uid` and `gid` the owners of one of its files, or of the directory itself; a file that is not there is
    /// none.
    pub fn give(&self, name: &str, uid: u32, gid: u32) -> Result<(), Error> {
        let path = if name.is_empty() {
            self.path.clone()
        } else {
            format!("{}/{name}", self.path)
        };
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        match rustix::fs::chownat(
            &self.hierarchy.root,
            path,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("give away", name, error)),
        }
    }

    /// rmdir(2); Ok where it is gone already.
    pub fn remove(&self) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(&self.hierarchy.root, self.path.as_str(), AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// The names of the cgroups below, one level; none where it is gone.
    pub fn children(&self) -> Result<Vec<String>, Error> {
        let stat = match rustix::fs::statat(&self.hierarchy.root, self.path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(self.error("examine", "", error)),
        };
        // A directory without sub-directories has two links: no need to list forty files.
        if stat.st_nlink == 2 {
            return Ok(Vec::new());
        }
        self.list().or_else(|error| match error {
            Errno::NOENT | Errno::NODEV => Ok(Vec::new()),
            error => Err(self.error("list", "", error)),
        })
    }

    fn list(&self) -> rustix::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.try_open("", OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }
}

/// Reads a whole kernel file from where the fd stands.
pub(super) fn read_all(file: &OwnedFd) -> rustix::io::Result<String> {
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        match rustix::io::read(file, &mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if length == text.len() {
            text.resize(length * 2, 0);
        }
    }
    text.truncate(length);
    Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
