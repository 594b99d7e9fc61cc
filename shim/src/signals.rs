//! Signals as the event loop hears of them.
//!
//! tokio's own driver makes a channel for each of the 64 there are: 26 KiB of every shim, for three of them.

use std::io;
use std::os::fd::OwnedFd;

use runtime_core::sys::signal;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::io::watch::watch;

/// Some signals, which do nothing else from now on.
pub struct Signals(AsyncFd<OwnedFd>);

impl Signals {
    /// Watches for `signals`. Each of them by one watcher alone.
    pub fn watch(signals: &[Signal]) -> io::Result<Self> {
        Ok(Self(watch(signal::watch(signals)?, Interest::READABLE)?))
    }

    /// One of them has come, or several, since the last call.
    pub async fn recv(&self) -> io::Result<()> {
        self.0.async_io(Interest::READABLE, |event| signal::take(event)).await
    }
}
