//! Paths in the container: resolved by the kernel below one fd of its root (openat2(2), RESOLVE_IN_ROOT), made where
//! they are missing. No path is ever resolved twice: what is found or made is an fd from then on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Error;

/// The kernel gives up a walk in which something was renamed meanwhile (EAGAIN); more attempts than this are an attack.
const ATTEMPTS: usize = 128;
/// Depth of a path that is made: more is nobody's mount point.
const MAX_COMPONENTS: usize = 256;
/// Links on the way, as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The directory (or, if `file`, the file) at `destination` below `root`, made with its parents if it does not exist.
pub fn target(root: BorrowedFd<'_>, destination: &str, file: bool) -> Result<OwnedFd, Error> {
    let made = match resolve(root, destination, OFlags::empty(), ResolveFlags::empty()) {
        Err(Errno::NOENT) => make(root, destination, file),
        other => other,
    };
    made.map_err(|errno| Error::Target {
        destination: destination.to_owned(),
        source: errno.into(),
    })
}

/// mkdir -p below `root`, mode 0755.
pub fn directories(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match resolve(root, path, OFlags::DIRECTORY, ResolveFlags::empty()) {
        Err(Errno::NOENT) => Ok(make(root, path, false)?),
        other => Ok(other?),
    }
}

/// Walks `path` by hand, one fd a component, and makes what is missing. A link that dangles is followed inside the
/// root, so that an image's /etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf can be mounted over, as under
/// runc.
///
/// Nothing is followed by the kernel here and `..` goes back to an fd that was passed before: whoever renames things
/// meanwhile moves the walk within the root at most.
fn make(root: BorrowedFd<'_>, path: &str, file: bool) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut passed: Vec<OwnedFd> = Vec::new();
    let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                passed.pop();
                continue;
            }
            _ if passed.len() > MAX_COMPONENTS => return Err(Errno::NAMETOOLONG),
            _ => {}
        }
        let here = passed.last().map_or(root, AsFd::as_fd);
        let is_last = ahead.iter().all(|rest| rest.is_empty() || rest == ".");
        match rustix::fs::readlinkat(here, name.as_str(), Vec::new()) {
            Ok(link) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let link = link.to_str().map_err(|_| Errno::ILSEQ)?;
                if link.starts_with('/') {
                    passed.clear();
                }
                ahead.extend(link.split('/').rev().map(str::to_owned));
                continue;
            }
            Err(Errno::NOENT) if is_last && file => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return rustix::fs::openat(here, name.as_str(), flags, Mode::from_raw_mode(0o755));
            }
            Err(Errno::NOENT) => match rustix::fs::mkdirat(here, name.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            },
            // No link: a directory, one hopes.
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
        let flags = if is_last && file {
            directory & !OFlags::DIRECTORY
        } else {
            directory
        };
        passed.push(rustix::fs::openat(here, name.as_str(), flags, Mode::empty())?);
    }
    match passed.pop() {
        Some(fd) => Ok(fd),
        None => rustix::fs::openat(root, c".", directory, Mode::empty()),
    }
}

/// What is at `path` below `root`, symlinks followed inside the root; None where there is nothing.
pub fn existing(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match resolve(root, path, OFlags::empty(), ResolveFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What is at `path` below `root`; an error (ELOOP) where a symbolic link is on the way, or is it.
pub fn unlinked(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    resolve(root, path, OFlags::empty(), ResolveFlags::NO_SYMLINKS)
}

/// The real directory at `destination`, for proc and sysfs: a symlink on the way is refused (CVE-2019-19921).
pub fn real_directory(root: BorrowedFd<'_>, destination: &str) -> Result<OwnedFd, Error> {
    let open = || resolve(root, destination, OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS);
    let opened = match open() {
        Err(Errno::NOENT) => {
            directories(root, destination).map_err(|source| Error::Target {
                destination: destination.to_owned(),
                source,
            })?;
            open()
        }
        other => other,
    };
    opened.map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => Error::Symlink(destination.to_owned()),
        errno => Error::Target {
            destination: destination.to_owned(),
            source: errno.into(),
        },
    })
}

fn resolve(root: BorrowedFd<'_>, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | resolve;
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn missing_directories_are_made_below_the_root_and_dot_dot_does_not_leave_it() {
        let (directory, fd) = root();
        directories(fd.as_fd(), "/a/b/c").unwrap();
        directories(fd.as_fd(), "/../../a/b/d").unwrap();
        assert!(directory.path().join("a/b/c").is_dir());
        assert!(directory.path().join("a/b/d").is_dir());
    }

    #[test]
    fn a_symlink_to_the_host_is_followed_inside_the_root_only() {
        let (directory, fd) = root();
        symlink("/etc", directory.path().join("link")).unwrap();
        symlink("../../../../etc", directory.path().join("up")).unwrap();
        for (path, made) in [("/link/one", "etc/one"), ("/up/two", "etc/two")] {
            directories(fd.as_fd(), path).unwrap();
            assert!(directory.path().join(made).is_dir(), "{path}");
            assert!(!std::path::Path::new("/").join(made).exists(), "{path}");
        }
    }

    #[test]
    fn a_dangling_file_link_is_made_real_inside_the_root() {
        let (directory, fd) = root();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", directory.path().join("etc/resolv.conf")).unwrap();
        target(fd.as_fd(), "/etc/resolv.conf", true).unwrap();
        assert!(directory.path().join("run/resolve/stub.conf").is_file());
    }

    #[test]
    fn links_that_go_in_circles_are_an_error() {
        let (directory, fd) = root();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert!(directories(fd.as_fd(), "/a/x").is_err());
    }

    #[test]
    fn proc_and_sysfs_are_refused_on_symlinks() {
        let (directory, fd) = root();
        std::fs::create_dir(directory.path().join("real")).unwrap();
        symlink("real", directory.path().join("proc")).unwrap();
        let error = real_directory(fd.as_fd(), "/proc").unwrap_err().to_string();
        assert!(error.starts_with("/proc is a symbolic link in the image"), "{error}");
    }

    #[test]
    fn a_file_target_is_made_as_an_empty_file() {
        let (directory, fd) = root();
        target(fd.as_fd(), "/etc/resolv.conf", true).unwrap();
        assert_eq!(std::fs::read(directory.path().join("etc/resolv.conf")).unwrap(), b"");
        assert!(target(fd.as_fd(), "/", false).is_ok());
    }

    #[test]
    fn ten_thousand_components_are_an_error() {
        let (_directory, fd) = root();
        let deep = "/x".repeat(10_000);
        assert!(directories(fd.as_fd(), &deep).is_err());
    }
}
