//! A pseudo terminal of the container's own devpts instance.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("opening {path} for a terminal")]
    Open { path: &'static str, source: io::Error },
    #[error("{0} is not the multiplexer of a devpts instance")]
    NotPtmx(&'static str),
    #[error("{operation} a pseudo terminal")]
    Pty { operation: &'static str, source: io::Error },
}

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// A new pseudo terminal below the container's root: master and slave.
///
/// The multiplexer is looked up below the root's fd and must be character device 5:2 on a devpts: a file of that name
/// in the image is not trusted. The slave is opened through the master (TIOCGPTPEER), never by a path (CVE-2025-52565).
pub fn open(proc: BorrowedFd<'_>, root: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd), Error> {
    const PATH: &str = "/dev/pts/ptmx";
    let handle = rustix::fs::openat2(
        root,
        "dev/pts/ptmx",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|errno| Error::Open {
        path: PATH,
        source: errno.into(),
    })?;
    let stat = rustix::fs::fstat(&handle).map_err(|errno| Error::Open {
        path: PATH,
        source: errno.into(),
    })?;
    let fs = rustix::fs::fstatfs(&handle).map_err(|errno| Error::Open {
        path: PATH,
        source: errno.into(),
    })?;
    let is_ptmx = stat.st_mode & libc::S_IFMT == libc::S_IFCHR
        && stat.st_rdev == rustix::fs::makedev(5, 2)
        && fs.f_type as i64 == DEVPTS_MAGIC;
    if !is_ptmx {
        return Err(Error::NotPtmx(PATH));
    }
    let master = crate::sys::process::reopen(proc, &handle, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC)
        .map_err(|source| Error::Open { path: PATH, source })?;
    rustix::pty::unlockpt(&master).map_err(pty("unlocking"))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(pty("opening the slave of"))?;
    if let Some((rows, columns)) = size {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).map_err(pty("sizing"))?;
    }
    Ok((master, slave))
}

/// Makes `slave` the controlling terminal and the three standard streams of this process, a session leader.
pub fn adopt(slave: OwnedFd) -> Result<(), Error> {
    crate::sys::process::set_controlling_terminal(slave.as_fd()).map_err(|source| Error::Pty {
        operation: "taking control of",
        source,
    })?;
    crate::sys::process::set_streams([slave.as_fd(); 3]).map_err(|source| Error::Pty {
        operation: "taking as standard streams",
        source,
    })
}

fn pty(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::Pty {
        operation,
        source: errno.into(),
    }
}

/// The slave belongs to the process's user, with the mode that terminals have.
pub fn give(slave: &OwnedFd, uid: u32) -> Result<(), Error> {
    match rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(uid)), None) {
        // A user namespace that does not map it.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(pty("giving away")(errno)),
    }
}
