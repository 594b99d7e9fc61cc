//! Finding the program in the container, as the container's user, before anything is promised.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

/// Why a program cannot be executed. Texts are those that users of runc know and search for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    #[error("exec: {0:?}: is a directory")]
    Directory(String),
    #[error("exec: {0:?}: permission denied")]
    Permission(String),
    #[error("exec: {name:?}: stat {name}: {source}")]
    Stat { name: String, source: io::Error },
}

/// Where `name` is: itself if it has a slash, else the first executable file of that name in `path`'s directories. Run
/// in the container's root, cwd and identity.
pub fn find(name: &str, path: Option<&str>) -> Result<PathBuf, Error> {
    if name.contains('/') {
        return check(Path::new(name)).map(|()| name.into());
    }
    let mut denied = None;
    for directory in path.unwrap_or_default().split(':') {
        // An empty element is the current directory (execvp(3)).
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Error::Permission(_)) => denied = Some(Error::Permission(name.to_owned())),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| Error::NotInPath(name.to_owned())))
}

fn check(path: &Path) -> Result<(), Error> {
    let name = || String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let stat = rustix::fs::stat(path).map_err(|errno| match errno {
        rustix::io::Errno::ACCESS => Error::Permission(name()),
        errno => Error::Stat {
            name: name(),
            source: describe(errno),
        },
    })?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Error::Directory(name()));
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(|_| Error::Permission(name()))
}

/// The kernel's words without the number.
fn describe(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::NOENT => io::Error::new(io::ErrorKind::NotFound, "no such file or directory"),
        rustix::io::Errno::NOTDIR => io::Error::new(io::ErrorKind::NotADirectory, "not a directory"),
        rustix::io::Errno::LOOP => io::Error::other("too many levels of symbolic links"),
        errno => errno.into(),
    }
}
