//! Listing a container's processes, and signalling them.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::sys::signal;

/// How long processes may take to die of SIGKILL: one that waits for a disk or for NFS dies only then.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Passes of SIGKILL over a cgroup in which new processes keep appearing, before it is frozen for the next one.
const PASSES_UNFROZEN: u32 = 3;
/// Passes of another signal, until no new process has appeared.
const PASSES_OF_SIGNAL: u32 = 16;
/// pidfds held at a time: far below the usual limit of 1,024 open files.
const BATCH: usize = 128;
/// The longest wait before the list is read again: cgroup v1 tells nobody when a cgroup gets empty.
const LONGEST_SLICE: Duration = Duration::from_millis(20);

/// Every process of a cgroup and those below it; empty where it is gone. Dead ones that nobody has reaped are not listed.
pub(super) fn processes(top: &Directory) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    let mut pending = vec![top.clone()];
    while let Some(directory) = pending.pop() {
        let Some(text) = directory.read_if_there("cgroup.procs")? else {
            continue;
        };
        for line in text.lines() {
            let malformed = || Error::Content {
                file: directory.file("cgroup.procs"),
                line: line.into(),
            };
            pids.push(line.parse().map_err(|_| malformed())?);
        }
        pending.extend(directory.children()?.iter().map(|name| directory.child(name)));
    }
    Ok(pids)
}

/// The same, refused where we are one of them: such a path is none of a container's.
fn others(top: &Directory) -> Result<Vec<i32>, Error> {
    let pids = processes(top)?;
    if pids.iter().any(|pid| pid.unsigned_abs() == std::process::id()) {
        return Err(Error::Ourselves { directory: top.full() });
    }
    Ok(pids)
}

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
        // A process that forks while we go through the list leaves a child that is found by the next pass.
        let mut signalled = HashSet::new();
        for _ in 0..PASSES_OF_SIGNAL {
            let new: Vec<i32> = others(main)?.into_iter().filter(|pid| signalled.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            for batch in new.chunks(BATCH) {
                send(main, batch, signal)?;
            }
        }
        Ok(())
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

    /// cgroup.kill of the unified hierarchy: all at once, forks included (Linux 5.14, cgroup-v2.rst). Reaches those that
    /// were placed there.
    fn kill_at_once(&self) -> Result<(), Error> {
        let Some(unified) = &self.unified else { return Ok(()) };
        match unified.try_write("cgroup.kill", "1") {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(unified.write_error("cgroup.kill", "1", error)),
        }
    }
}

/// Sends `signal` to those of `pids` that are in `part`, and returns their pidfds. A pid that was reused in between is
/// never hit: after the pidfds are open the list is read again, so that what a pidfd stands for is either a process that
/// the list names, or dead.
fn send(part: &Directory, pids: &[i32], signal: Signal) -> Result<Vec<OwnedFd>, Error> {
    let mut opened = Vec::with_capacity(pids.len());
    for &pid in pids {
        let Some(name) = Pid::from_raw(pid) else { continue };
        match rustix::process::pidfd_open(name, PidfdFlags::empty()) {
            Ok(pidfd) => opened.push((pid, pidfd)),
            Err(Errno::SRCH) => {}
            Err(source) => {
                return Err(Error::Send {
                    signal: signal.as_raw(),
                    pid,
                    source,
                });
            }
        }
    }
    let confirmed: HashSet<i32> = processes(part)?.into_iter().collect();
    opened.retain(|(pid, _)| confirmed.contains(pid));
    let mut sent = Vec::with_capacity(opened.len());
    for (pid, pidfd) in opened {
        match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => sent.push(pidfd),
            Err(Errno::SRCH) => {}
            Err(source) => {
                return Err(Error::Send {
                    signal: signal.as_raw(),
                    pid,
                    source,
                });
            }
        }
    }
    Ok(sent)
}

/// Waits until every one of them has ended, at most `limit`. Init of a PID namespace tells its end only when all others of
/// the namespace were reaped, hence the limit.
fn wait(pidfds: &[OwnedFd], limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let mut waiting: Vec<&OwnedFd> = pidfds.iter().collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds: Vec<PollFd<'_>> = waiting.iter().map(|pidfd| PollFd::new(*pidfd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => {
                return Err(Error::Io {
                    operation: "wait for",
                    path: "the killed processes".into(),
                    source,
                });
            }
        }
        let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        waiting.retain(|_| !ended.next().unwrap_or_default());
        if waiting.is_empty() {
            return Ok(());
        }
    }
}
