//! Signals.

use std::sync::Arc;

use super::lifecycle::{ExecState, State};
use super::{Container, Error, Exec};

/// Highest signal of Linux: SIGRTMAX.
const LAST_SIGNAL: u32 = 64;

/// Who gets a signal.
#[derive(Debug)]
pub enum Target {
    /// The container's first process.
    Init,
    /// Every process of the container.
    All,
    /// An exec'd process.
    Exec(Arc<Exec>),
}

impl Container {
    /// Sends a signal.
    pub async fn kill(&self, target: Target, signal: u32) -> Result<(), Error> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(Error::NoSignal { signal });
        }
        match target {
            Target::Exec(exec) => self.kill_exec(&exec, signal as i32),
            Target::Init => self.kill_init(signal as i32, false).await,
            Target::All => self.kill_init(signal as i32, true).await,
        }
    }

    fn kill_exec(&self, exec: &Exec, signal: i32) -> Result<(), Error> {
        let Some(process) = exec.process.native() else {
            return Err(match exec.state() {
                ExecState::Stopped => Error::Finished,
                _ => Error::NotStarted {
                    exec: exec.id.clone(),
                    id: self.id.clone(),
                },
            });
        };
        let sent = process.signal(signal);
        finished_unless(sent.map_err(Error::native("kill", &self.id))?)
    }

    async fn kill_init(&self, signal: i32, all: bool) -> Result<(), Error> {
        let state = self.state();
        let Some(process) = self.init.native().filter(|_| state != State::Stopped) else {
            return Err(Error::Finished);
        };
        // Whoever shares a PID namespace outlives init: a container that is killed has to go as a whole.
        let whole = all || (signal == libc::SIGKILL && !self.native.has_own_pid_namespace());
        let _killing = self.killing.read().await;
        let sent = process.signal(signal);
        let sent = sent.map_err(Error::native("kill", &self.id))?;
        if signal == libc::SIGKILL && matches!(state, State::Paused | State::Pausing) {
            // In cgroup v1 a frozen process does not even die.
            self.cgroup_step("thaw", |cgroup| cgroup.thaw()).await;
        }
        if !whole {
            return finished_unless(sent);
        }
        let native = Arc::clone(&self.native);
        let killed = self.shim.blocking(move || native.cgroup().kill(signal)).await?;
        killed.map_err(|source| Error::Cgroup {
            operation: "kill",
            id: self.id.clone(),
            source,
        })
    }
}

fn finished_unless(sent: bool) -> Result<(), Error> {
    if sent { Ok(()) } else { Err(Error::Finished) }
}
