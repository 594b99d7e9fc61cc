//! Terminals of containers and execs, and whose their streams are.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::{Error, failing, file};
use crate::sys::message;

/// Streams belong to the process's user, as natively: it may open them again by /proc/self/fd.
pub(super) fn give(stream: &OwnedFd, uid: u32) {
    // What cannot be given away is none of our pipes.
    let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
}

/// A listener for the master of the terminal that runsc makes.
pub(super) fn listen(bundle: &Path) -> Result<(UnixListener, PathBuf), Error> {
    let path = bundle.join("console");
    let directory = File::open(bundle).map_err(file("opening", bundle))?;
    let short = format!("/proc/self/fd/{}/console", directory.as_raw_fd());
    let listener = UnixListener::bind(short).map_err(file("listening at", &path))?;
    Ok((listener, path))
}

/// runsc has connected and sent before it ended: nothing here has to be waited for.
pub(super) fn accept(listener: &UnixListener) -> Result<OwnedFd, Error> {
    listener
        .set_nonblocking(true)
        .map_err(failing("listening for the terminal"))?;
    let (stream, _) = listener
        .accept()
        .map_err(failing("accepting the terminal from runsc"))?;
    stream
        .set_nonblocking(true)
        .map_err(failing("reading the terminal from runsc"))?;
    let (_, fds) = message::receive(&stream).map_err(failing("receiving the terminal from runsc"))?;
    let none = || failing("receiving the terminal from runsc")(std::io::ErrorKind::UnexpectedEof.into());
    fds.into_iter().next().ok_or_else(none)
}

/// A terminal of the host's own devpts: master and slave.
pub(super) fn terminal(size: Option<(u16, u16)>, uid: u32) -> Result<(OwnedFd, OwnedFd), Error> {
    use rustix::pty::OpenptFlags;
    let failed = |errno: rustix::io::Errno| failing("making a terminal")(errno.into());
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).map_err(failed)?;
    rustix::pty::unlockpt(&master).map_err(failed)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed)?;
    give(&slave, uid);
    if let Some((rows, columns)) = size {
        resize(&master, rows, columns)?;
    }
    Ok((master, slave))
}

pub(super) fn resize(master: &OwnedFd, rows: u16, columns: u16) -> Result<(), Error> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size).map_err(|errno| failing("sizing a terminal")(errno.into()))
}
