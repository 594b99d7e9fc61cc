//! The switch of a process's root to a mount.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};

use crate::sys::mount::{MountAttr, pivot_here, set_attributes};

/// Makes the mount that `root` refers to, attached in our mount namespace, its root, and detaches the old one.
/// pivot_root(2), NOTES: the old root ends up on top of the new one, without a directory of its own.
pub fn switch_root(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(root)?;
    pivot_here()?;
    rustix::process::fchdir(&old)?;
    // Unmounting must not reach the host, whatever the propagation was.
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    set_attributes(&old, true, slave)?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}
