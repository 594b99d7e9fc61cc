//! Secrets in memory: a volume's content copied into a file system of the container's own that never reaches a disk.
//!
//! The kernel copies from page to page (sendfile(2)): no buffer of ours ever holds a secret. The copy is attached
//! nowhere until it is complete, so that one that fails has vanished with its fd. Links are copied as links: nothing is
//! followed out of the volume, which may be somebody else's to write to.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::filesystem::{clone_handle, set_mount_attributes};
use super::{Error, overlay, paths};
use crate::plan::Mount;
use crate::sys::spawn::attach;
use crate::sys::{namespace, process};

/// Bytes and entries of one volume: a Secret has a mebibyte at most.
const BYTES: u64 = 8 << 20;
const ENTRIES: u64 = 4096;

/// Deeper trees are refused: each level holds two fds.
const MAX_DEPTH: usize = 32;

/// What a single file is called in its file system.
const FILE: &CStr = c"secret";

/// A detached mount, with the attributes of `mount`, of a copy in memory of what `source` refers to.
pub fn copy(mount: &Mount, source: &OwnedFd, owner: (u32, u32), proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let failed = |what| {
        let destination = mount.destination.clone();
        move |source: io::Error| Error::Memory {
            destination,
            what,
            source,
        }
    };
    let is_directory = paths::is_directory(source).map_err(failed("looking at it"))?;
    let label = mount.data.iter().find_map(|option| option.strip_prefix("context="));
    let memory = file_system(label).map_err(failed("making a file system in memory"))?;
    let mut copy = Copy {
        owner: (Uid::from_raw(owner.0), Gid::from_raw(owner.1)),
        bytes: 0,
        entries: 0,
    };
    let copied = if is_directory {
        copy.directory(source.as_fd(), memory.as_fd(), 0)
    } else {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = process::reopen(proc, source, flags).map_err(Stop::Failed);
        opened.and_then(|file| copy.file(&file, memory.as_fd(), FILE))
    };
    copied.map_err(|stop| match stop {
        Stop::Failed(error) => failed("copying it")(error),
        Stop::Limit(limit, unit) => Error::MemoryLimit {
            destination: mount.destination.clone(),
            limit,
            unit,
        },
    })?;
    let made = if is_directory {
        memory
    } else {
        single_file(&memory, FILE).map_err(failed("mounting one file"))?
    };
    set_mount_attributes(&made, mount)?;
    Ok(made)
}

/// tmpfs that is never swapped (Linux 6.4); before, ramfs, which never is.
fn file_system(label: Option<&str>) -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = match fsconfig_set_flag(tmpfs.as_fd(), "noswap") {
        Ok(()) => {
            fsconfig_set_string(tmpfs.as_fd(), "size", (BYTES * 2).to_string())?;
            fsconfig_set_string(tmpfs.as_fd(), "nr_inodes", (ENTRIES + 1).to_string())?;
            tmpfs
        }
        Err(_) => fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC)?,
    };
    fsconfig_set_string(context.as_fd(), "source", "nucleus-secrets")?;
    if let Some(label) = label {
        fsconfig_set_string(context.as_fd(), "context", label)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached mount of the file alone. Only of what is attached can a part be cloned (until Linux 6.15): in a mount
/// namespace that is left at once.
pub(super) fn single_file(memory: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let (home, directory) = overlay::leave()?;
    let clone = || -> io::Result<OwnedFd> {
        let path = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(c"/", path | OFlags::DIRECTORY, Mode::empty())?;
        attach(memory, root.as_fd())?;
        let file = rustix::fs::openat(memory, name, path | OFlags::NOFOLLOW, Mode::empty())?;
        clone_handle(file.as_fd(), false)
    };
    let made = clone();
    namespace::enter(&home, libc::CLONE_NEWNS)?;
    rustix::process::fchdir(&directory)?;
    made
}

/// Why copying ended early.
enum Stop {
    Failed(io::Error),
    Limit(u64, &'static str),
}

impl From<rustix::io::Errno> for Stop {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Failed(errno.into())
    }
}

/// A copy under way.
struct Copy {
    owner: (Uid, Gid),
    bytes: u64,
    entries: u64,
}

impl Copy {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Stop> {
        if depth == MAX_DEPTH {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = rustix::fs::openat(from, c".", directory, Mode::empty())?;
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries >= ENTRIES {
                return Err(Stop::Limit(ENTRIES, "entries"));
            }
            let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                    let source = rustix::fs::openat(&from, name, directory, Mode::empty())?;
                    let target = rustix::fs::openat(to, name, directory, Mode::empty())?;
                    self.directory(source.as_fd(), target.as_fd(), depth + 1)?;
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let source = rustix::fs::openat(&from, name, flags, Mode::empty())?;
                    self.file(&source, to, name)?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&from, name, Vec::new())?;
                    rustix::fs::symlinkat(&link, to, name)?;
                    let (uid, gid) = self.owner;
                    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                // A node, a FIFO or a socket is no secret.
                _ => return Err(rustix::io::Errno::NXIO.into()),
            }
        }
        self.give(
            to.try_clone_to_owned().map_err(Stop::Failed)?.as_fd(),
            Mode::RUSR | Mode::XUSR,
        )
    }

    fn file(&mut self, from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Stop> {
        // Whoever exchanged it since it was looked at does not make us wait for a writer.
        if FileType::from_raw_mode(rustix::fs::fstat(from)?.st_mode) != FileType::RegularFile {
            return Err(rustix::io::Errno::NXIO.into());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(to, name, flags, Mode::RUSR)?;
        loop {
            let rest = BYTES - self.bytes;
            // One byte more than fits: a longer file is told from one that just fits.
            match rustix::fs::sendfile(&file, from, None, rest as usize + 1)? {
                0 => break,
                length if length as u64 > rest => return Err(Stop::Limit(BYTES, "bytes")),
                length => self.bytes += length as u64,
            }
        }
        self.give(file.as_fd(), Mode::RUSR)
    }

    fn give(&self, what: BorrowedFd<'_>, mode: Mode) -> Result<(), Stop> {
        let (uid, gid) = self.owner;
        // The root of a mount is held by its path alone; what is below it is ours alone yet.
        rustix::fs::chownat(what, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        match rustix::fs::fchmod(what, mode) {
            Err(rustix::io::Errno::BADF) => rustix::fs::chmodat(what, c".", mode, AtFlags::empty())?,
            result => result?,
        }
        Ok(())
    }
}
