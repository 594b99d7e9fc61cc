//! A user namespace with its maps, as an fd.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::fork::{Fork, fork};
use super::{message, process};
use crate::plan::IdMap;

/// Why there is no user namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
    #[error("writing {file} of the user namespace: {map}")]
    IdMap {
        file: &'static str,
        map: String,
        source: io::Error,
    },
}

/// Makes a user namespace with these maps. A short-lived child makes it and stays until the maps are written: that
/// takes the rights of the host's root, which whoever is inside has lost (user_namespaces(7)). `proc` is the host's
/// /proc.
pub fn new(uids: &[IdMap], gids: &[IdMap], proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let (ours, theirs) = message::pair().map_err(io("making a socket"))?;
    let (pid, pidfd) = match fork(libc::CLONE_NEWUSER as u64).map_err(io("making a user namespace"))? {
        Fork::Child => {
            drop(ours);
            // Until the other end is closed; what is heard does not matter.
            let _ = message::receive(&theirs);
            process::exit_now(0)
        }
        Fork::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(theirs);
    let made = write_map(proc, pid, "uid_map", uids)
        .and_then(|()| write_map(proc, pid, "gid_map", gids))
        .and_then(|()| {
            rustix::fs::openat(
                proc,
                format!("{pid}/ns/user"),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| io("opening the new user namespace")(errno.into()))
        });
    drop(ours);
    process::reap(&pidfd).map_err(io("ending the user namespace's first process"))?;
    made
}

fn write_map(proc: BorrowedFd<'_>, pid: i32, file: &'static str, map: &[IdMap]) -> Result<(), Error> {
    let text: String = map
        .iter()
        .map(|line| format!("{} {} {}\n", line.container, line.host, line.size))
        .collect();
    let write = || -> io::Result<()> {
        let fd = rustix::fs::openat(
            proc,
            format!("{pid}/{file}"),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::io::write(&fd, text.as_bytes())?;
        Ok(())
    };
    write().map_err(|source| Error::IdMap {
        file,
        map: text.trim_end().replace('\n', ", "),
        source,
    })
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
