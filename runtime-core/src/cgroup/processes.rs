//! The processes of a cgroup: listing them, signalling them, waiting for their end. The same in both versions.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Error;
use super::directory::Directory;

/// Passes of a signal other than SIGKILL, until no new process has appeared.
const PASSES_OF_SIGNAL: u32 = 16;
/// pidfds held at a time: far below the usual limit of 1,024 open files.
pub(super) const BATCH: usize = 128;

/// Every process of a cgroup and those below it; empty where it is gone. Dead ones that nobody has reaped are not
/// listed.
pub(super) fn processes(top: &Directory) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    let mut pending = vec![top.clone()];
    while let Some(directory) = pending.pop() {
        let text = match directory.read_if_there("cgroup.procs") {
            Ok(text) => text.unwrap_or_default(),
            // v2: the processes of a threaded cgroup are listed by the nearest domain above it.
            Err(Error::Io {
                source: Errno::OPNOTSUPP,
                ..
            }) => String::new(),
            Err(error) => return Err(error),
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
pub(super) fn others(top: &Directory) -> Result<Vec<i32>, Error> {
    let pids = processes(top)?;
    if pids.iter().any(|pid| pid.unsigned_abs() == std::process::id()) {
        return Err(Error::Ourselves { directory: top.full() });
    }
    Ok(pids)
}

/// Sends `signal`, which is not SIGKILL, once to every process of `part` and below. A process that forks meanwhile
/// leaves a child that is found by the next pass.
pub(super) fn signal_all(part: &Directory, signal: Signal) -> Result<(), Error> {
    let mut signalled = HashSet::new();
    for _ in 0..PASSES_OF_SIGNAL {
        let new: Vec<i32> = others(part)?.into_iter().filter(|pid| signalled.insert(*pid)).collect();
        if new.is_empty() {
            break;
        }
        for batch in new.chunks(BATCH) {
            send(part, batch, signal)?;
        }
    }
    Ok(())
}

/// Sends `signal` to those of `pids` that are in `part`, and returns their pidfds. A pid that was reused in between is
/// never hit: after the pidfds are open the list is read again, so that what a pidfd stands for is either a process
/// that the list names, or dead.
pub(super) fn send(part: &Directory, pids: &[i32], signal: Signal) -> Result<Vec<OwnedFd>, Error> {
    let failed = |pid, source| Error::Send {
        signal: signal.as_raw(),
        pid,
        source,
    };
    let mut opened = Vec::with_capacity(pids.len());
    for &pid in pids {
        let Some(name) = Pid::from_raw(pid) else { continue };
        match rustix::process::pidfd_open(name, PidfdFlags::empty()) {
            Ok(pidfd) => opened.push((pid, pidfd)),
            Err(Errno::SRCH) => {}
            Err(source) => return Err(failed(pid, source)),
        }
    }
    let confirmed: HashSet<i32> = processes(part)?.into_iter().collect();
    opened.retain(|(pid, _)| confirmed.contains(pid));
    let mut sent = Vec::with_capacity(opened.len());
    for (pid, pidfd) in opened {
        match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => sent.push(pidfd),
            Err(Errno::SRCH) => {}
            Err(source) => return Err(failed(pid, source)),
        }
    }
    Ok(sent)
}

/// Waits until every one of them has ended, at most `limit`. Init of a PID namespace tells its end only when all others
/// of the namespace were reaped, hence the limit.
pub(super) fn wait(pidfds: &[OwnedFd], limit: Duration) -> Result<(), Error> {
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
