//! Fds that the event loop watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the event loop watch `fd`, which has to be non-blocking.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types whose fd may change; an OwnedFd's cannot"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
