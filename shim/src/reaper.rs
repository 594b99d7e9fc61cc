//! Reaping what others left behind.
//!
//! The shim is a subreaper: without a PID namespace of its own a container's orphans become the shim's children. Its own
//! processes are not seen here, as they were made with no exit signal, which hides them from waitid(2) without `__WALL`; an
//! orphan gets SIGCHLD when it changes its parent (`reparent_leader` in kernel/exit.c). What runs on the shim's behalf for a
//! moment (hooks) has SIGCHLD as well: so nothing is reaped while anything is in flight.

use std::sync::Arc;

use rustix::process::{WaitId, WaitIdOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shim::Shim;

/// Makes this process the parent of its descendants' orphans.
pub fn become_subreaper() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// SIGCHLD from now on.
pub fn child_ended() -> std::io::Result<Signal> {
    signal(SignalKind::child())
}

/// Reaps orphans for ever.
pub async fn run(shim: Arc<Shim>, mut child_ended: Signal) {
    let mut in_flight = shim.in_flight();
    while child_ended.recv().await.is_some() {
        // The sender is part of the shim that we hold.
        let _ = in_flight.wait_for(|count| *count == 0).await;
        // No await between here and the last of them: nothing can be launched meanwhile.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(Some(_orphan)) = rustix::process::waitid(WaitId::All, options) {}
    }
}
