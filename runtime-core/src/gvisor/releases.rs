//! Which release a runsc is, remembered for the next pod: to ask it takes a run of it, a part of every pod's start.
//!
//! One file below /run for root alone, gone with the next boot. An entry counts for the very file that was asked: its
//! device, inode, size and times. Who could change runsc and leave its ctime as it was has the node already. Only the
//! question how old it is is answered from here: its owner, its path's modes and its digest are looked at for every
//! pod.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};

/// The file's name: no sandbox's namespace begins with a dot.
const FILE: &str = ".releases";
/// How many are remembered: a node has one or two.
const MOST: usize = 8;
/// Bytes that are read.
const SIZE_LIMIT: u64 = 64 << 10;
/// A file that was changed less long ago may be changed again within the same tick of the kernel's clock.
const SETTLED: Duration = Duration::from_secs(1);

/// What tells one state of a file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Identity {
    /// Of an open file.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self::new(&rustix::fs::fstat(fd)?))
    }

    fn new(stat: &Stat) -> Self {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, number(stat.st_ctime_nsec)),
            modified: (stat.st_mtime, number(stat.st_mtime_nsec)),
        }
    }

    /// Whether it was changed long enough before `now` for its times to tell of the next change.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(self.changed.0)
            .is_ok_and(|seconds| now > Duration::from_secs(seconds) + Duration::from_secs(1) + SETTLED)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    file: Identity,
    release: u32,
}

/// The releases that are remembered in a directory of root's alone.
#[derive(Debug)]
pub struct Releases(PathBuf);

impl Releases {
    /// Those in `directory`.
    pub fn within(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    /// The release of this file, if it was asked before. What cannot be read is not known: it is asked then.
    pub fn get(&self, file: Identity) -> Option<u32> {
        let known = self.read().unwrap_or_default();
        known.iter().find(|entry| entry.file == file).map(|entry| entry.release)
    }

    /// Remembers it, before those that are known.
    ///
    /// # Errors
    /// Why the file could not be written.
    pub fn put(&self, file: Identity, release: u32) -> io::Result<()> {
        if !file.is_settled(SystemTime::now()) {
            return Ok(());
        }
        let mut known = self.read().unwrap_or_default();
        known.retain(|entry| (entry.file.device, entry.file.inode) != (file.device, file.inode));
        known.insert(0, Entry { file, release });
        known.truncate(MOST);
        let text = serde_json::to_vec(&known)?;
        // Two shims may write at once: each its own file, and the later name counts.
        let temporary = self.0.with_extension(std::process::id().to_string());
        let written = super::create::write_file(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &self.0));
        if written.is_err() {
            // What is told is why it could not be written.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    fn read(&self) -> io::Result<Vec<Entry>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::open(&self.0, flags, Mode::empty())?);
        let found = file.metadata()?;
        if found.uid() != 0 || found.mode() & 0o022 != 0 || !found.is_file() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut text = Vec::new();
        file.take(SIZE_LIMIT).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64, changed: i64) -> Identity {
        Identity {
            device: 1,
            inode,
            size: 7,
            changed: (changed, 0),
            modified: (changed, 0),
        }
    }

    #[test]
    fn a_release_is_remembered_for_the_very_file_and_the_latest_few() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let releases = Releases::within(directory.path());
        assert_eq!(releases.get(identity(1, 10)), None);
        releases.put(identity(1, 10), 20_260_224).unwrap();
        assert_eq!(releases.get(identity(1, 10)), Some(20_260_224));
        assert_eq!(releases.get(identity(1, 11)), None, "it was changed");
        releases.put(identity(1, 11), 20_260_301).unwrap();
        assert_eq!(releases.get(identity(1, 10)), None, "there is one state of a file");
        for inode in 2..=MOST as u64 {
            releases.put(identity(inode, 10), 20_260_224).unwrap();
        }
        assert_eq!(releases.get(identity(1, 11)), Some(20_260_301));
        releases.put(identity(100, 10), 20_260_224).unwrap();
        assert_eq!(releases.get(identity(1, 11)), None, "the oldest goes");
    }

    #[test]
    fn what_was_changed_a_moment_ago_is_asked_again() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert!(identity(1, 990).is_settled(now));
        assert!(!identity(1, 999).is_settled(now));
        assert!(!identity(1, 2000).is_settled(now), "a clock that was set back");
    }

    #[test]
    fn a_file_that_others_may_write_to_says_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let releases = Releases::within(directory.path());
        releases.put(identity(1, 10), 20_260_224).unwrap();
        std::fs::set_permissions(&releases.0, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(releases.get(identity(1, 10)), None);
        std::fs::write(&releases.0, "no JSON").unwrap();
        assert_eq!(releases.get(identity(1, 10)), None);
    }
}
