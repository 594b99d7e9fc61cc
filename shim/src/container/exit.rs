//! The end of processes, and the order in which the world hears of it.
//!
//! An init's exit is the last thing that is told of its container: every exec'd process has to have ended before.
//! Within one exit the order is: waiters are unblocked, an OOM kill is told, then the exit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::topics;
use runtime_core::backend;

use super::process::{Outcome, reap};
use super::{Container, Exec};
use crate::container::lifecycle::{ExecState, State};
use crate::reaper::Child;
use crate::timestamp;

/// What containerd reports for an exit of which nothing is known.
pub const UNKNOWN_STATUS: u32 = 255;

/// File in the bundle that tells `delete` how init ended, should the shim die before containerd has asked.
const FILE: &str = "nucleus-exit";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + the signal.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

impl Exit {
    /// Leaves a note in the bundle. Not fsynced: /run does not outlive the kernel.
    fn write(self, bundle: &Path, pid: u32) -> std::io::Result<()> {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let temporary = bundle.join(format!(".{FILE}"));
        std::fs::write(
            &temporary,
            format!("{pid} {} {} {}\n", self.status, at.as_secs(), at.subsec_nanos()),
        )?;
        std::fs::rename(temporary, bundle.join(FILE))
    }

    /// The note's pid and exit, if there is a note.
    pub fn read(bundle: &Path) -> Option<(u32, Self)> {
        let text = std::fs::read_to_string(bundle.join(FILE)).ok()?;
        let mut numbers = text.split_ascii_whitespace();
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let (pid, status) = (next()? as u32, next()? as u32);
        let at = UNIX_EPOCH + Duration::new(next()?, u32::try_from(next()?).ok()?);
        Some((pid, Self { status, at }))
    }
}

/// Follows init to its end.
pub async fn follow_init(container: Arc<Container>, init: Arc<dyn backend::Process>, child: Child) {
    let exit = reap(init, child).await;
    let was = container.init_reaped();
    if matches!(was, State::Paused | State::Pausing) {
        container.step("resume", |runtime| runtime.resume()).await;
    }
    if !container.runtime.ends_with_init() {
        container
            .step("kill what is left of", |runtime| runtime.signal_all(libc::SIGKILL))
            .await;
    }
    container.until_no_exec_runs().await;
    let _starting = container.init.hold_exit().await;
    let pid = container.init.pid();
    if let Err(error) = exit.write(&container.bundle, pid) {
        log::warn!("note the exit of container {}: {error}", container.id);
    }
    // Nothing awaits from here on: nobody who was unblocked acts before all of it is told.
    container.set_state(State::Stopped);
    container.init.set_outcome(Outcome::Exited(exit));
    container.last_oom_check(exit.status);
    container.publish_exit(&container.id, pid, exit);
}

/// Follows an exec'd process to its end.
pub async fn follow_exec(container: Arc<Container>, exec: Arc<Exec>, process: Arc<dyn backend::Process>, child: Child) {
    let exit = reap(process, child).await;
    let _starting = exec.process.hold_exit().await;
    exec.set_state(ExecState::Stopped);
    exec.process.set_outcome(Outcome::Exited(exit));
    container.publish_exit(&exec.id, exec.process.pid(), exit);
    container.exec_ended();
}

impl Container {
    fn publish_exit(&self, id: &str, pid: u32, exit: Exit) {
        let event = TaskExit {
            container_id: self.id.clone(),
            id: id.to_owned(),
            pid,
            exit_status: exit.status,
            exited_at: timestamp::message(exit.at),
            ..TaskExit::new()
        };
        self.shim.publisher.publish(topics::TASK_EXIT_EVENT_TOPIC, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_an_exit_is_read_back() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(bundle.path()), None);
        let exit = Exit {
            status: 137,
            at: UNIX_EPOCH + Duration::new(1_700_000_000, 42),
        };
        exit.write(bundle.path(), 7).unwrap();
        assert_eq!(Exit::read(bundle.path()), Some((7, exit)));
    }

    #[test]
    fn a_note_that_makes_no_sense_is_no_note() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join(FILE), "1 2 x").unwrap();
        assert_eq!(Exit::read(bundle.path()), None);
    }
}
