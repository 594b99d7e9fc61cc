//! The socket on which containerd reaches a group's shim.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::{Digest as _, Sha256};

/// Where containerd's shims put their sockets unless containerd says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/run/containerd/s";

/// Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be made.
    #[error("make directory {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory cannot be locked.
    #[error("lock directory {path}")]
    Lock {
        /// The directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody answers there, and it cannot be asked why.
    #[error("connect to {path}")]
    Connect {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A dead shim's socket stays.
    #[error("remove stale socket {path}")]
    Remove {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be bound.
    #[error("listen on {path}")]
    Listen {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What [`open`] found or made.
#[derive(Debug)]
pub enum Socket {
    /// A shim of this group serves there already.
    Served,
    /// A new one, listening.
    New(OwnedFd),
}

/// Path of the socket for `group`: containerd's own rule, `<directory>/<sha256 of address/namespace/group>`.
pub fn path(directory: &str, address: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::new()
        .chain_update(format!("{address}/{namespace}/{group}"))
        .finalize();
    let mut path = String::with_capacity(directory.len() + 1 + 2 * digest.len());
    path.push_str(directory.trim_end_matches('/'));
    path.push('/');
    for byte in digest.iter() {
        write!(path, "{byte:02x}").expect("writing to a String cannot fail");
    }
    path.into()
}

/// Listens on `path`, unless a shim does already; what a dead one left is replaced.
///
/// Directory 0700, socket 0600: whoever can connect controls containers as root (CVE-2020-15257). Two `start`s for one
/// group at once must not both find the old socket stale and remove each other's new one: all of it happens under a
/// lock on the directory.
pub fn open(path: &Path) -> Result<Socket, Error> {
    let name = || path.display().to_string();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let lock = lock(directory)?;
    if is_served(path).map_err(|source| Error::Connect { path: name(), source })? {
        return Ok(Socket::Served);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Remove {
                path: name(),
                source: error,
            });
        }
        _ => {}
    }
    let listener = listen(path).map_err(|source| Error::Listen { path: name(), source })?;
    drop(lock);
    Ok(Socket::New(listener))
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // bind(2) gives the file the mode of the socket's own inode, less the umask: there is no moment at which it is
    // wider.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// How long a shim that was killed may take to close its listener.
const DYING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Removes the socket of a shim that is dead; one that is served stays. Whether there was one to remove.
pub fn remove_stale(path: &Path) -> Result<bool, Error> {
    let name = || path.display().to_string();
    if !path.exists() {
        return Ok(false);
    }
    let failed = |source| Error::Connect { path: name(), source };
    // containerd calls as soon as a killed shim's connection breaks: its listener may close a moment later.
    if stays_served(path).map_err(failed)? {
        return Ok(false);
    }
    let _lock = lock(path.parent().unwrap_or(Path::new("/")))?;
    if is_served(path).map_err(failed)? {
        return Ok(false);
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Remove { path: name(), source }),
    }
}

fn lock(directory: &Path) -> Result<File, Error> {
    let name = || directory.display().to_string();
    let open = || File::open(directory);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|source| Error::Directory { path: name(), source })?;
            open()
        }
        file => file,
    };
    let file = file.map_err(|source| Error::Directory { path: name(), source })?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(Error::Lock {
                    path: name(),
                    source: error.into(),
                });
            }
            Ok(()) => return Ok(file),
        }
    }
}

/// Whether somebody listens on `path`. Never waits: a listener with a full queue is one.
fn is_served(path: &Path) -> io::Result<bool> {
    Ok(connect(path)?.is_some())
}

/// Whether a connection to the socket lives longer than a dying shim does.
fn stays_served(path: &Path) -> io::Result<bool> {
    let Some(connection) = connect(path)? else {
        return Ok(false);
    };
    let mut fds = [PollFd::new(&connection, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&DYING))? == 0)
}

/// A connection, None where nobody listens. It is not ready yet where the listener's queue is full.
fn connect(path: &Path) -> io::Result<Option<OwnedFd>> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::AGAIN) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_name_is_the_digest_of_address_namespace_and_group() {
        let path = path("/run/containerd/s/", "/run/containerd/containerd.sock", "default", "c1");
        // printf %s /run/containerd/containerd.sock/default/c1 | sha256sum
        let expected = "/run/containerd/s/d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888";
        assert_eq!(path.to_str().unwrap(), expected);
    }

    #[test]
    fn directory_and_socket_are_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s").join("x");
        let Socket::New(_listener) = open(&path).unwrap() else {
            panic!("nobody serves there yet")
        };
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_served_socket_is_found_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let Socket::New(listener) = open(&path).unwrap() else {
            panic!("nobody serves there yet")
        };
        assert!(matches!(open(&path).unwrap(), Socket::Served));
        assert!(!remove_stale(&path).unwrap());
        drop(listener);
        let Socket::New(listener) = open(&path).unwrap() else {
            panic!("the listener is dead")
        };
        drop(listener);
        assert!(remove_stale(&path).unwrap());
        assert!(!remove_stale(&path).unwrap());
    }

    #[test]
    fn starts_at_the_same_time_agree_on_one_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let made = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path).unwrap())).collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .filter(|s| matches!(s, Socket::New(_)))
                .collect::<Vec<_>>()
        });
        assert_eq!(made.len(), 1);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error_and_not_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(&directory.path().join("x".repeat(120))).unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }
}
