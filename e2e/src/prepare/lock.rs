//! A lock between runs of `cargo e2e`, and between parts of one: flock(2) on a file below `target/`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// How often a lock that somebody else has is asked for: it is held for minutes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until nobody else has it; it ends with what is returned.
pub async fn exclusive(file: &Path) -> Result<OwnedFd> {
    let opened = File::create(file).with_context(|| format!("open {}", file.display()))?;
    let lock = OwnedFd::from(opened);
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(INTERVAL).await,
            Err(error) => return Err(error).with_context(|| format!("lock {}", file.display())),
        }
    }
}
