//! What is on disk about a container, for cleaning up after a crash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::sys::mount::TMPFS_MAGIC;
use rustix::fs::{self as unix, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize};

/// A process that cannot be mistaken for another: a pid alone may have been used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, as this host's first PID namespace (or the shim's own) numbers it.
    pub pid: i32,
    /// Clock ticks after boot at which it started: field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

/// The record of one container, `<bundle>/nucleus.json`: written before anything that would need cleaning up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this file; a reader refuses one that it does not know. See [`VERSION`].
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The group (pod) that shares one shim.
    pub group: String,
    /// The shim that runs it.
    pub shim: ProcessId,
    /// The shim's socket, to be unlinked when the shim is dead.
    pub socket: Option<PathBuf>,
    /// The container's init, once it exists.
    pub init: Option<ProcessId>,
    /// The cgroup path, the same below every hierarchy; None before a cgroup was made.
    pub cgroup: Option<String>,
    /// poststop hooks that are still owed.
    #[serde(default)]
    pub poststop: Vec<crate::plan::Hook>,
    /// The spec's annotations, where hooks are owed: they are part of what those read.
    #[serde(default)]
    pub annotations: Vec<(String, String)>,
    /// What the node demanded of it, and who decided each setting; None where a version with other settings wrote it.
    #[serde(default, deserialize_with = "known_policy")]
    pub policy: Option<crate::policy::Policy>,
    /// The directory of the gVisor sandbox that this container is the first of.
    #[serde(default)]
    pub sandbox: Option<PathBuf>,
}

/// Why a record cannot be written or read. Each variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// An operation on the record's file (or its temporary sibling) failed.
    #[error("cannot {operation} record {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file is not a record: truncated, of another shape, or not JSON.
    #[error("{} is not a container's record", path.display())]
    Alien { path: PathBuf, source: serde_json::Error },
    /// The record was written by a version of nucleus whose layout this one does not know.
    #[error("record {} has layout version {found}, and this version of nucleus reads {VERSION} only", path.display())]
    Version { path: PathBuf, found: u32 },
    /// The file is not a regular file: something else was planted there.
    #[error("record {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// The file is larger than any record.
    #[error("record {} has {size} bytes, and at most {SIZE_LIMIT} are allowed", path.display())]
    TooLarge { path: PathBuf, size: u64 },
}

/// Name of the record's file in the bundle directory.
pub const FILE_NAME: &str = "nucleus.json";

/// The layout that this version writes and reads.
pub const VERSION: u32 = 1;

/// Bytes: poststop hooks with a large environment are the only thing in a record that can be long.
const SIZE_LIMIT: u64 = 4 << 20;

/// Beside tmpfs the file system that loses its content with the power: to sync either is a wait for nothing. See
/// statfs(2).
const RAMFS_MAGIC: u64 = 0x8584_58f6;

impl ProcessId {
    /// The process `pid` as it is now, None where there is none.
    pub fn of(pid: i32) -> Option<Self> {
        Self::look(pid).ok().flatten()
    }

    /// Whether this very process still exists (a zombie does). Where /proc cannot be asked (no fd left, say), it counts
    /// as alive: to clean up below a living container would be worse than to clean up late.
    pub fn is_alive(&self) -> bool {
        match Self::look(self.pid) {
            Ok(found) => found == Some(*self),
            Err(_) => true,
        }
    }

    fn look(pid: i32) -> io::Result<Option<Self>> {
        if pid <= 0 {
            return Ok(None);
        }
        let mut text = [0u8; 1024];
        let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
        let length = match read {
            Ok(length) => length,
            // ENOENT: no such process; ESRCH: it was reaped between open and read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let start_time = start_time(&text[..length]).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(Self { pid, start_time }))
    }
}

/// Field 22 of proc_pid_stat(5). The second field is the process's own choice of name and may hold spaces and
/// parentheses: fields are counted from the last one.
fn start_time(stat: &[u8]) -> Option<u64> {
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

impl Record {
    /// Writes the record: a temporary file of mode 0600 beside it, fsync where the file system outlives the machine's
    /// power, rename. A reader sees the old record or the new one, never a part. On error no temporary file is left.
    pub fn write(&self, bundle: &Path) -> Result<(), Error> {
        let path = bundle.join(FILE_NAME);
        let io = |operation| {
            let path = path.clone();
            move |source| Error::Io {
                operation,
                path,
                source,
            }
        };
        let text = serde_json::to_vec(self).map_err(|error| io("encode")(error.into()))?;
        // The name is fixed: one shim writes a container's record, and what a crash left here is overwritten.
        let temporary = bundle.join(".nucleus.json.new");
        let written = write_new(&temporary, &text)
            .map_err(io("write"))
            .and_then(|()| unix::rename(&temporary, &path).map_err(|error| io("rename")(error.into())));
        if written.is_err() {
            // The error that is reported is the first one; the rest is at worst an unused file in a bundle that
            // containerd removes.
            let _ = unix::unlink(&temporary);
        }
        written
    }

    /// Reads the record; None where there is none. What is not a record is an error that names the file, so that
    /// clean-up never acts on half of one.
    pub fn read(bundle: &Path) -> Result<Option<Self>, Error> {
        let path = bundle.join(FILE_NAME);
        let io = |operation| {
            let path = path.clone();
            move |source| Error::Io {
                operation,
                path,
                source,
            }
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match unix::open(&path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Error::NotAFile { path }),
            Err(error) => return Err(io("open")(error.into())),
        };
        let metadata = file.metadata().map_err(io("stat"))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile { path });
        }
        if metadata.len() > SIZE_LIMIT {
            return Err(Error::TooLarge {
                path,
                size: metadata.len(),
            });
        }
        let mut text = Vec::with_capacity(metadata.len() as usize + 1);
        file.take(SIZE_LIMIT).read_to_end(&mut text).map_err(io("read"))?;
        // The version first: another layout need not have the fields of this one.
        let alien = |source| Error::Alien {
            path: path.clone(),
            source,
        };
        let Layout { version } = serde_json::from_slice(&text).map_err(alien)?;
        if version != VERSION {
            return Err(Error::Version { path, found: version });
        }
        serde_json::from_slice(&text).map(Some).map_err(alien)
    }

    /// Removes the record; no error where there is none.
    pub fn remove(bundle: &Path) -> Result<(), Error> {
        let path = bundle.join(FILE_NAME);
        match unix::unlinkat(CWD, &path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::Io {
                operation: "remove",
                path,
                source: error.into(),
            }),
        }
    }
}

/// Nothing is cleaned up by the policy: after an upgrade, one that cannot be read any more must not keep `delete` from
/// it.
fn known_policy<'de, D: Deserializer<'de>>(from: D) -> Result<Option<crate::policy::Policy>, D::Error> {
    let policy = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(policy).ok())
}

#[derive(Deserialize)]
struct Layout {
    version: u32,
}

/// Writes a file of mode 0600 whose content is on the disk when this returns, if there is a disk below it.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(unix::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(text)?;
    let kind = unix::fstatfs(&file)?.f_type as u64;
    if !matches!(kind, TMPFS_MAGIC | RAMFS_MAGIC) {
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            id: "c1".into(),
            group: "pod".into(),
            shim: ProcessId::of(std::process::id() as i32).unwrap(),
            socket: Some("/run/containerd/s/abc".into()),
            init: None,
            cgroup: Some("/k8s/c1".into()),
            poststop: vec![crate::plan::Hook {
                path: "/bin/true".into(),
                args: vec![],
                env: vec![],
                timeout: 3,
            }],
            annotations: vec![("a".into(), "b".into())],
            policy: Some(crate::policy::Policy::default()),
            sandbox: None,
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(bundle.path()).unwrap(), None);
        let mut record = record();
        record.write(bundle.path()).unwrap();
        assert_eq!(Record::read(bundle.path()).unwrap().as_ref(), Some(&record));
        record.init = Some(record.shim);
        record.write(bundle.path()).unwrap();
        assert_eq!(Record::read(bundle.path()).unwrap(), Some(record));
        let names: Vec<_> = std::fs::read_dir(bundle.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE_NAME]);
        let mode = std::fs::metadata(bundle.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        Record::remove(bundle.path()).unwrap();
        Record::remove(bundle.path()).unwrap();
        assert_eq!(Record::read(bundle.path()).unwrap(), None);
    }

    #[test]
    fn a_record_with_the_policy_of_another_version_is_read_without_it() {
        let bundle = tempfile::tempdir().unwrap();
        let record = record();
        let mut document = serde_json::to_value(&record).unwrap();
        for policy in [serde_json::json!({"mode": {"value": "agent"}}), serde_json::json!("x")] {
            document["policy"] = policy;
            std::fs::write(bundle.path().join(FILE_NAME), document.to_string()).unwrap();
            let read = Record::read(bundle.path()).unwrap().unwrap();
            assert_eq!(
                read,
                Record {
                    policy: None,
                    ..record.clone()
                }
            );
        }
    }

    #[test]
    fn a_truncated_or_alien_record_is_an_error_that_names_the_file() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join(FILE_NAME);
        record().write(bundle.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for (text, expected) in [
            (&whole[..whole.len() / 2], "is not a container's record"),
            (b"", "is not a container's record"),
            (b"[1, 2]", "is not a container's record"),
            (br#"{"version": 1}"#, "is not a container's record"),
            (
                br#"{"version": 7, "id": 5}"#,
                "has layout version 7, and this version of nucleus reads 1 only",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Record::read(bundle.path()).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains(path.to_str().unwrap()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_record_that_is_no_file_is_refused_without_being_followed_or_waited_for() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join(FILE_NAME);
        symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(Record::read(bundle.path()), Err(Error::NotAFile { .. })));
        std::fs::remove_file(&path).unwrap();
        unix::mknodat(CWD, &path, unix::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(Record::read(bundle.path()), Err(Error::NotAFile { .. })));
        std::fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(SIZE_LIMIT + 1).unwrap();
        assert!(matches!(Record::read(bundle.path()), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_record_cannot_be_written_where_there_is_no_bundle() {
        let error = record()
            .write(Path::new("/nonexistent/bundle"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot write record /nonexistent/bundle/nucleus.json");
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_the_same_pid() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(
            !ProcessId {
                start_time: own.start_time + 1,
                ..own
            }
            .is_alive()
        );
        assert_eq!(ProcessId::of(0), None);
        assert_eq!(ProcessId::of(-1), None);
        assert_eq!(ProcessId::of(i32::MAX), None);
    }

    #[test]
    fn a_zombie_still_exists_until_it_is_reaped() {
        let mut child = std::process::Command::new("/bin/true")
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        assert!(id.is_alive());
        child.wait().unwrap();
        assert!(!id.is_alive());
    }

    #[test]
    fn the_start_time_is_found_behind_a_hostile_process_name() {
        let stat = b"7 (a) S 9 9 9) R 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time(b"7 (x"), None);
        assert_eq!(start_time(b"7 (x) S 1"), None);
    }
}
