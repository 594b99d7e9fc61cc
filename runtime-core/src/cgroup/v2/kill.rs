//! Killing what is in a container's cgroup.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::{V2, await_event};
use crate::cgroup::processes::{others, signal_all};
use crate::cgroup::{Error, KILL_LIMIT};
use crate::sys::signal;

/// The longest wait before cgroup.kill is written again.
const SLICE: Duration = Duration::from_millis(100);

impl V2 {
    pub fn kill(&self, number: i32) -> Result<(), Error> {
        match signal::from_number(number) {
            None => Err(Error::Signal { signal: number }),
            Some(Signal::KILL) => self.kill_until_empty(Instant::now() + KILL_LIMIT),
            Some(signal) => signal_all(&self.part, signal),
        }
    }

    /// cgroup.kill reaches everything in the cgroup and below, frozen or about to fork (Linux 5.14). Written again,
    /// since somebody may have moved a process in meanwhile.
    pub(super) fn kill_until_empty(&self, deadline: Instant) -> Result<(), Error> {
        loop {
            let pids = others(&self.part)?;
            match self.part.try_write("cgroup.kill", "1") {
                Ok(()) => {}
                Err(Errno::NOENT | Errno::NODEV) if !self.exists() => return Ok(()),
                Err(error) => return Err(self.part.write_error("cgroup.kill", "1", error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if await_event(&self.part, "populated", 0, left.min(SLICE))? {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Error::Survivors {
                    directory: self.part.full(),
                    pids,
                });
            }
        }
    }
}
