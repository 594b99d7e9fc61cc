//! Reaping what others left behind.
//!
//! The shim is a subreaper: without a PID namespace of its own a container's orphans become the shim's children. Its
//! own children are waited for by those who made them, by pidfd: they are registered here, and left alone. What runs on
//! the shim's behalf only for a moment (a hook, a process that is just being made) cannot be registered in time: so
//! nothing is reaped while anything is in flight.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime_core::sys::process::ended_child;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::shim::Shim;
use crate::signals::Signals;

/// How long after its end a child of ours may not have been reaped yet.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often its owner gets a turn before that: the event loop hears of a child by pidfd and by signal at the same
/// time.
const TURNS: usize = 3;

/// How many go by each pid: every process in a sentry goes by the sentry's.
static CHILDREN: Mutex<Option<HashMap<i32, usize>>> = Mutex::new(None);

/// A child of ours that somebody waits for, until this is dropped.
#[derive(Debug)]
pub struct Child(i32);

impl Child {
    /// Has the reaper leave `pid` alone.
    pub fn register(pid: i32) -> Self {
        *children().get_or_insert_default().entry(pid).or_default() += 1;
        Self(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(children) = children().as_mut()
            && let Some(count) = children.get_mut(&self.0)
        {
            *count -= 1;
            if *count == 0 {
                children.remove(&self.0);
            }
        }
    }
}

fn children() -> MutexGuard<'static, Option<HashMap<i32, usize>>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_known(pid: i32) -> bool {
    children().as_ref().is_some_and(|children| children.contains_key(&pid))
}

/// Makes this process the parent of its descendants' orphans.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// SIGCHLD from now on.
pub fn child_ended() -> io::Result<Signals> {
    Signals::watch(&[Signal::CHILD])
}

/// Reaps orphans for ever.
pub async fn run(shim: Arc<Shim>, child_ended: Signals) {
    let mut in_flight = shim.in_flight();
    loop {
        if let Err(error) = child_ended.recv().await {
            log::error!("watch for orphans: {error}");
            return;
        }
        let mut turns = 0;
        loop {
            // The sender is part of the shim that we hold. No await between here and reaping: nothing can be made
            // meanwhile.
            let _ = in_flight.wait_for(|count| *count == 0).await;
            match ended_child().unwrap_or_else(|error| {
                log::warn!("look for orphans: {error}");
                None
            }) {
                None => break,
                Some(pid) if !is_known(pid) => reap(pid),
                // A holder that ended before its container: its owner would wait for it only on delete.
                Some(pid) if shim.end_helper(pid) => {}
                // It hides all that ended after it.
                Some(_) if turns < TURNS => {
                    turns += 1;
                    tokio::task::yield_now().await;
                }
                Some(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    }
}

fn reap(pid: i32) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let reaped = Pid::from_raw(pid).map(|pid| rustix::process::waitid(WaitId::Pid(pid), options));
    if let Some(Err(error)) = reaped {
        log::debug!("reap orphan {pid}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_known_until_its_registration_is_dropped() {
        // No process has this pid: the kernel's limit is 2^22.
        let pid = i32::MAX - 1;
        assert!(!is_known(pid));
        let child = Child::register(pid);
        assert!(is_known(pid));
        drop(child);
        assert!(!is_known(pid));
    }
}
