//! Paths in the container: resolved below one fd of its root, made where they are missing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use pathrs::RootRef;
use pathrs::flags::OpenFlags;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Error, errno, from_pathrs};

/// The directory (or, if `file`, the file) at `destination` below `root`, made with its parents if it does not exist.
pub fn target(root: BorrowedFd<'_>, destination: &str, file: bool) -> Result<OwnedFd, Error> {
    find_or_make(RootRef::from_fd(root), destination, file).map_err(|source| Error::Target {
        destination: destination.to_owned(),
        source,
    })
}

fn find_or_make(root: RootRef<'_>, destination: &str, file: bool) -> io::Result<OwnedFd> {
    match root.resolve(destination) {
        Ok(handle) => return Ok(handle.into()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => {}
        Err(error) => return Err(from_pathrs(error)),
    }
    if !file {
        return make_directories(root, destination);
    }
    let path = Path::new(destination);
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    };
    make_directories(root, &parent.to_string_lossy())?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    root.create_file(
        path,
        OpenFlags::O_CREAT | OpenFlags::O_EXCL | OpenFlags::O_CLOEXEC,
        &permissions,
    )
    .map_err(from_pathrs)?;
    root.resolve(path).map(OwnedFd::from).map_err(from_pathrs)
}

/// mkdir -p below `root`, mode 0755.
pub fn directories(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    make_directories(RootRef::from_fd(root), path)
}

fn make_directories(root: RootRef<'_>, path: &str) -> io::Result<OwnedFd> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    root.mkdir_all(path, &permissions)
        .map(OwnedFd::from)
        .map_err(from_pathrs)
}

/// What is at `path` below `root`, symlinks followed inside the root; None where there is nothing.
pub fn existing(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match RootRef::from_fd(root).resolve(path) {
        Ok(handle) => Ok(Some(handle.into())),
        Err(error) if matches!(errno(&error), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(from_pathrs(error)),
    }
}

/// The real directory at `destination`, for proc and sysfs: a symlink on the way is refused (CVE-2019-19921).
pub fn real_directory(root: BorrowedFd<'_>, destination: &str) -> Result<OwnedFd, Error> {
    let open = || {
        rustix::fs::openat2(
            root,
            destination.trim_start_matches('/'),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    };
    let opened = match open() {
        Err(rustix::io::Errno::NOENT) => {
            directories(root, destination).map_err(|source| Error::Target {
                destination: destination.to_owned(),
                source,
            })?;
            open()
        }
        other => other,
    };
    opened.map_err(|errno| match errno {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => Error::Symlink(destination.to_owned()),
        errno => Error::Target {
            destination: destination.to_owned(),
            source: errno.into(),
        },
    })
}

/// Whether the fd is of a directory.
pub fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Parent and name of an absolute path in the container.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    (!name.is_empty() && name != "." && name != "..").then_some((if parent.is_empty() { "/" } else { parent }, name))
}
