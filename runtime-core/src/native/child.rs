//! What the shim does for a process that the holder forked, from outside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::wire::Message;
use super::{Error, Process, Stdio, io};
use crate::plan;
use crate::sys::process;

/// The process that a [`super::wire::Tag::Forked`] message tells of.
pub(super) fn forked(message: Message) -> Result<Process, Error> {
    let pid = std::str::from_utf8(&message.payload)
        .ok()
        .and_then(|text| text.parse().ok());
    match (pid, message.fds.into_iter().next()) {
        (Some(pid), Some(pidfd)) => Ok(Process::new(pid, pidfd)),
        _ => Err(Error::Setup(
            "the holder told of a process without its pid and pidfd".to_owned(),
        )),
    }
}

/// What only a process of the host's user namespace may do for one in another, beside placing it
/// ([`crate::cgroup::Cgroup::place`]): hard limits, a lower OOM score.
pub(super) fn limit_from_outside(limits: &plan::Process, pid: i32) -> Result<(), Error> {
    for limit in &limits.rlimits {
        process::set_rlimit(pid, limit).map_err(io("setting process.rlimits"))?;
    }
    if let Some(score) = limits.oom_score_adj {
        let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
        std::fs::write(path, score.to_string()).map_err(io("setting process.oomScoreAdj"))?;
    }
    Ok(())
}

/// The three streams, /dev/null where there is none.
pub(super) fn streams<'a>(stdio: &'a Stdio, null: &'a OwnedFd) -> [BorrowedFd<'a>; 3] {
    [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|stream| stream.as_ref().unwrap_or(null).as_fd())
}
