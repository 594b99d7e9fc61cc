//! Killing what is in a container's cgroups.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::V1;
use crate::cgroup::directory::Directory;
use crate::cgroup::processes::{BATCH, others, processes, send, signal_all, wait};
use crate::cgroup::{Error, KILL_LIMIT};
use crate::sys::signal;

/// Passes of SIGKILL over a cgroup in which new processes keep appearing, before it is frozen for the next one.
const PASSES_UNFROZEN: u32 = 3;
/// The longest wait before the list is read again: cgroup v1 tells nobody when a cgroup gets empty.
const LONGEST_SLICE: Duration = Duration::from_millis(20);

impl V1 {
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        processes(self.main()?)
    }

    pub fn kill(&self, number: i32) -> Result<(), Error> {
        let signal = signal::from_number(number).ok_or(Error::Signal { signal: number })?;
        let main = self.main()?;
        if signal == Signal::KILL {
            return self.kill_until_empty(main, Instant::now() + KILL_LIMIT);
        }
        signal_all(main, signal)
    }

    /// SIGKILL to everything in `part` and below, again and again, until nothing is left there.
    pub(super) fn kill_until_empty(&self, part: &Directory, deadline: Instant) -> Result<(), Error> {
        let mut slice = Duration::from_millis(1);
        for pass in 0.. {
            let pids = others(part)?;
            if pids.is_empty() {
                return Ok(());
            }
            if pass > 0 && Instant::now() >= deadline {
                return Err(Error::Survivors {
                    directory: part.full(),
                    pids,
                });
            }
            if pass == 0 {
                self.kill_at_once()?;
            }
            let still = pass >= PASSES_UNFROZEN;
            if still {
                // Only a cgroup that stands still can be killed faster than it forks.
                self.try_freeze();
            }
            // pids that were killed by cgroup.kill are signalled once more: it does no harm.
            let mut waited: Vec<OwnedFd> = Vec::new();
            for batch in pids.chunks(BATCH) {
                let sent = send(part, batch, Signal::KILL)?;
                waited.extend(sent.into_iter().take(BATCH - waited.len()));
            }
            // A frozen process dies when it is thawed, not before.
            if still || pass == 0 {
                self.thaw_if_frozen()?;
            }
            wait(&waited, slice.min(deadline.saturating_duration_since(Instant::now())))?;
            slice = (slice * 2).min(LONGEST_SLICE);
        }
        Ok(())
    }

    /// cgroup.kill of the unified hierarchy: all at once, forks included (Linux 5.14, cgroup-v2.rst). Reaches those
    /// that were placed there.
    fn kill_at_once(&self) -> Result<(), Error> {
        let Some(unified) = &self.unified else { return Ok(()) };
        match unified.try_write("cgroup.kill", "1") {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(unified.write_error("cgroup.kill", "1", error)),
        }
    }
}
