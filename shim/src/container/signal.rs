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
            Target::Exec(exec) => self.kill_exec(&exec, signal as i32).await,
            Target::Init => self.kill_init(signal as i32, false).await,
            Target::All => self.kill_init(signal as i32, true).await,
        }
    }

    async fn kill_exec(&self, exec: &Exec, signal: i32) -> Result<(), Error> {
        let Some(process) = exec.process.runtime() else {
            return Err(match exec.state() {
                ExecState::Stopped => Error::Finished,
                _ => Error::NotStarted {
                    exec: exec.id.clone(),
                    id: self.id.clone(),
                },
            });
        };
        let process = Arc::clone(process);
        let sent = self.shim.blocking(move || process.signal(signal)).await?;
        finished_unless(sent.map_err(Error::runtime("kill", &self.id))?)
    }

    async fn kill_init(&self, signal: i32, all: bool) -> Result<(), Error> {
        let state = self.state();
        let Some(process) = self.init.runtime().filter(|_| state != State::Stopped) else {
            return Err(Error::Finished);
        };
        // Whoever shares a PID namespace outlives init: a container that is killed has to go as a whole.
        let whole = all || (signal == libc::SIGKILL && !self.runtime.ends_with_init());
        let _killing = self.killing.read().await;
        let (runtime, process) = (Arc::clone(&self.runtime), Arc::clone(process));
        let sent = self.shim.blocking(move || runtime.signal(&*process, signal)).await?;
        let sent = sent.map_err(Error::runtime("kill", &self.id))?;
        if signal == libc::SIGKILL && matches!(state, State::Paused | State::Pausing) {
            // In cgroup v1 a frozen process does not even die.
            self.step("resume", |runtime| runtime.resume()).await;
        }
        if !whole {
            return finished_unless(sent);
        }
        let runtime = Arc::clone(&self.runtime);
        let killed = self.shim.blocking(move || runtime.signal_all(signal)).await?;
        killed.map_err(Error::runtime("kill", &self.id))
    }
}

fn finished_unless(sent: bool) -> Result<(), Error> {
    if sent { Ok(()) } else { Err(Error::Finished) }
}
