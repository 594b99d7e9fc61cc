//! Device nodes, the default links, and /dev/console.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Error, paths};
use crate::plan::Device;
use crate::sys::spawn::attach;

/// Links that every container has (OCI runtime spec, "Default Devices" and "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Makes the node anew: whatever the image has there is taken away first.
pub fn make(root: BorrowedFd<'_>, device: &Device) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Device {
        path: device.path.clone(),
        source,
    };
    let (parent, name) = parent_of(root, &device.path).map_err(failed)?;
    let node = || -> io::Result<()> {
        remove(parent.as_fd(), name)?;
        let kind = FileType::from_raw_mode(device.kind);
        let number = rustix::fs::makedev(device.major, device.minor);
        // The mode is right from the first moment. To set it later would be by name, and somebody who can write to the
        // directory could have a link there by then. The holder has one thread, so that nobody else meets this umask.
        let umask = rustix::process::umask(Mode::empty());
        let made = rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), number);
        rustix::process::umask(umask);
        made?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&handle)?;
        if (stat.st_mode & libc::S_IFMT, stat.st_rdev) != (device.kind, number) {
            return Err(io::Error::other("somebody put another file in its place"));
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&handle, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        Ok(())
    };
    node().map_err(failed)
}

/// A detached clone of the host's node, for a user namespace, where no node can be made.
pub fn clone_host(device: &Device) -> Result<OwnedFd, Error> {
    let failed = |errno: rustix::io::Errno| Error::Device {
        path: device.path.clone(),
        source: errno.into(),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let fd = open_tree(CWD, device.path.as_str(), flags).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let is_it =
        stat.st_mode & libc::S_IFMT == device.kind && stat.st_rdev == rustix::fs::makedev(device.major, device.minor);
    if is_it {
        Ok(fd)
    } else {
        Err(Error::WrongDevice(device.path.clone()))
    }
}

/// Attaches the clone at the device's path.
pub fn attach_clone(root: BorrowedFd<'_>, device: &Device, clone: &OwnedFd) -> Result<(), Error> {
    let target = paths::target(root, &device.path, true)?;
    attach(clone, target.as_fd()).map_err(|source| Error::Device {
        path: device.path.clone(),
        source,
    })
}

/// The default links, each where nothing is yet; /dev/ptmx always, since the image's own would be the wrong one.
pub fn make_links(root: BorrowedFd<'_>) -> Result<(), Error> {
    for (path, target) in LINKS {
        let link = || -> io::Result<()> {
            let (parent, name) = parent_of(root, path)?;
            if path == "/dev/ptmx" {
                remove(parent.as_fd(), name)?;
            }
            match rustix::fs::symlinkat(target, &parent, name) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        link().map_err(|source| Error::Link {
            path: path.to_owned(),
            target,
            source,
        })?;
    }
    Ok(())
}

/// Binds the slave of init's terminal, an fd and no path, to /dev/console. Returns the mount.
pub fn attach_console(root: BorrowedFd<'_>, proc: BorrowedFd<'_>, slave: &OwnedFd) -> Result<OwnedFd, Error> {
    const PATH: &str = "/dev/console";
    let failed = |source: io::Error| Error::Device {
        path: PATH.to_owned(),
        source,
    };
    let (parent, name) = parent_of(root, PATH).map_err(failed)?;
    let bind = || -> io::Result<OwnedFd> {
        remove(parent.as_fd(), name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o666))?;
        let number = std::os::fd::AsRawFd::as_raw_fd(slave);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let clone = open_tree(proc, format!("self/fd/{number}"), flags)?;
        attach(&clone, file.as_fd())?;
        Ok(clone)
    };
    bind().map_err(failed)
}

fn parent_of<'a>(root: BorrowedFd<'_>, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (parent, name) = paths::split(path).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok((paths::directories(root, parent)?, name))
}

/// Removes a file, not a directory; no error where there is none.
fn remove(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
