//! Volumes that are compared with a digest: copied as they are into a file system of the container's own, so that what
//! was compared is what the container sees, whatever becomes of the volume. Read from the copy, never from the volume.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::Error;
use super::filesystem::set_mount_attributes;
use super::secrets::single_file;
use crate::attest;
use crate::plan::Mount;
use crate::sys::process;

/// Bytes and entries of one mount: they are memory, which nobody pays for but the node.
const BYTES: u64 = 64 << 20;
const ENTRIES: u64 = 16384;

/// Deeper trees are refused: each level holds two fds.
const MAX_DEPTH: usize = 64;

/// What a single file is called in its file system.
const FILE: &CStr = c"file";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// A detached mount, with the attributes of `mount`, of a copy of what `source` refers to, whose digest is `expected`.
pub fn copy(mount: &Mount, source: &OwnedFd, expected: &str, proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let mut copy = Copy {
        destination: &mount.destination,
        bytes: 0,
        entries: 0,
    };
    let place = Path::new(&mount.destination);
    let whole = |operation, source: io::Error| copy_failed(&mount.destination, operation, place, source);
    let memory = file_system(mount).map_err(|error| whole("making a file system in memory for", error))?;
    let opened = process::reopen(proc, source, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC);
    let opened = opened.map_err(|error| whole("opening", error))?;
    let stat = rustix::fs::fstat(&opened).map_err(|errno| whole("looking at", errno.into()))?;
    let looked = |errno: rustix::io::Errno| whole("reading", errno.into());
    let (made, content) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let from = attest::published(opened.as_fd()).map_err(looked)?.unwrap_or(opened);
            // The mount's own fd is a path alone.
            let root = rustix::fs::openat(&memory, c".", DIRECTORY, Mode::empty()).map_err(looked)?;
            copy.directory(&from, &root, place, 0)?;
            (memory, root)
        }
        FileType::RegularFile => {
            let root = rustix::fs::openat(&memory, c".", DIRECTORY, Mode::empty()).map_err(looked)?;
            copy.file(&opened, root.as_fd(), FILE, place)?;
            let content = rustix::fs::openat(&root, FILE, READ, Mode::empty()).map_err(looked)?;
            (
                single_file(&memory, FILE).map_err(|error| whole("mounting", error))?,
                content,
            )
        }
        _ => return Err(copy.kind(place)),
    };
    let found = attest::of(content, place)?;
    if found != expected {
        return Err(Error::VolumeDiffers {
            destination: mount.destination.clone(),
            found,
            expected: expected.to_owned(),
        });
    }
    set_mount_attributes(&made, mount)?;
    Ok(made)
}

fn copy_failed(destination: &str, operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Volume {
        destination: destination.to_owned(),
        operation,
        path: path.to_owned(),
        source,
    }
}

fn file_system(mount: &Mount) -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(tmpfs.as_fd(), "source", "nucleus-volume")?;
    // What a page holds beyond a file's end counts too.
    fsconfig_set_string(tmpfs.as_fd(), "size", (BYTES + ENTRIES * 4096).to_string())?;
    fsconfig_set_string(tmpfs.as_fd(), "nr_inodes", (ENTRIES + 2).to_string())?;
    if let Some(label) = mount.data.iter().find_map(|option| option.strip_prefix("context=")) {
        fsconfig_set_string(tmpfs.as_fd(), "context", label)?;
    }
    fsconfig_create(tmpfs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(tmpfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy under way.
struct Copy<'a> {
    destination: &'a str,
    bytes: u64,
    entries: u64,
}

impl Copy<'_> {
    fn failed(&self, operation: &'static str, path: &Path) -> impl Fn(rustix::io::Errno) -> Error + use<> {
        let (destination, path) = (self.destination.to_owned(), path.to_owned());
        move |errno| copy_failed(&destination, operation, &path, errno.into())
    }

    fn kind(&self, path: &Path) -> Error {
        Error::VolumeKind {
            destination: self.destination.to_owned(),
            path: path.to_owned(),
        }
    }

    fn limit(&self, limit: u64, unit: &'static str) -> Error {
        Error::VolumeLimit {
            destination: self.destination.to_owned(),
            limit,
            unit,
        }
    }

    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path, depth: usize) -> Result<(), Error> {
        let reading = self.failed("reading", path);
        if depth == MAX_DEPTH {
            return Err(reading(rustix::io::Errno::LOOP));
        }
        for entry in Dir::read_from(from).map_err(&reading)? {
            let entry = entry.map_err(&reading)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(self.limit(ENTRIES, "entries"));
            }
            let path: PathBuf = path.join(&*String::from_utf8_lossy(name.to_bytes()));
            let (reading, copying) = (self.failed("reading", &path), self.failed("copying", &path));
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&reading)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(&copying)?;
                    let source = rustix::fs::openat(from, name, DIRECTORY, Mode::empty()).map_err(&reading)?;
                    let target = rustix::fs::openat(to, name, DIRECTORY, Mode::empty()).map_err(&copying)?;
                    self.directory(&source, &target, &path, depth + 1)?;
                }
                FileType::RegularFile => {
                    let source = rustix::fs::openat(from, name, READ, Mode::empty()).map_err(&reading)?;
                    self.file(&source, to.as_fd(), name, &path)?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(from, name, Vec::new()).map_err(&reading)?;
                    rustix::fs::symlinkat(&link, to, name).map_err(&copying)?;
                    let (uid, gid) = owner(&stat);
                    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(&copying)?;
                }
                // Who writes to a FIFO is not known yet, and what a device holds is not the volume's.
                _ => return Err(self.kind(&path)),
            }
        }
        properties(from, to).map_err(self.failed("copying the properties of", path))
    }

    fn file(&mut self, from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<(), Error> {
        let (reading, copying) = (self.failed("reading", path), self.failed("copying", path));
        // Whoever exchanged it since it was looked at does not make us wait for a writer.
        if FileType::from_raw_mode(rustix::fs::fstat(from).map_err(&reading)?.st_mode) != FileType::RegularFile {
            return Err(self.kind(path));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(to, name, flags, Mode::RUSR).map_err(&copying)?;
        loop {
            let rest = BYTES - self.bytes;
            // One byte more than fits: a longer file is told from one that just fits.
            match rustix::fs::sendfile(&file, from, None, rest as usize + 1).map_err(&copying)? {
                0 => break,
                length if length as u64 > rest => return Err(self.limit(BYTES, "bytes")),
                length => self.bytes += length as u64,
            }
        }
        properties(from, &file).map_err(self.failed("copying the properties of", path))
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// Owner, mode and the attributes that count, in the order in which the kernel keeps them: a new owner costs the
/// others.
fn properties(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = owner(&stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for name in attest::ATTRIBUTES {
        let mut value = [0; 256];
        match rustix::fs::fgetxattr(from, name, value.as_mut_slice()) {
            Ok(length) => rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?,
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
