//! Fds that the event loop watches.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the event loop watch `fd`, made non-blocking. That flag belongs to the open file description: the other end of a
/// pipe keeps its own.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types whose fd may change; an OwnedFd's cannot"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    }
    AsyncFd::with_interest(fd, interest)
}
