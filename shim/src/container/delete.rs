//! Deleting a container, or one of its exec'd processes.

use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::{ExecState, Operation, State};
use super::process::Outcome;
use super::{Container, Error};

/// How long what a process wrote may take to reach its client, where somebody keeps its streams open.
const DRAIN: Duration = Duration::from_secs(10);

/// What is told of what was deleted.
#[derive(Debug, Clone, Copy)]
pub struct Deleted {
    /// Its pid.
    pub pid: u32,
    /// How it ended.
    pub outcome: Outcome,
}

impl Container {
    /// Removes everything of a container that is not running. Nothing of it is left afterwards.
    pub async fn delete(&self) -> Result<Deleted, Error> {
        let _alone = self.exclusive.write().await;
        self.allow(Operation::Delete)?;
        if self.state() == State::Created
            && let Some(init) = self.init.runtime()
        {
            // Never started: it goes with its container, and its exit is told first.
            let (runtime, init) = (Arc::clone(&self.runtime), Arc::clone(init));
            let killed = self
                .shim
                .blocking(move || runtime.signal(&*init, libc::SIGKILL))
                .await?;
            killed.map_err(Error::runtime("delete", &self.id))?;
        }
        let outcome = self.init.wait().await;
        drop(self.killing.write().await);
        self.init.drain(DRAIN).await;
        let runtime = Arc::clone(&self.runtime);
        let warnings = self
            .shim
            .blocking(move || runtime.delete())
            .await?
            .map_err(Error::runtime("delete", &self.id))?;
        for warning in warnings {
            log::warn!("container {}: {}", self.id, crate::service::errors::chain(&warning));
        }
        self.forget_helper();
        let execs = {
            let mut inner = self.inner();
            inner.deleted = true;
            std::mem::take(&mut inner.execs)
        };
        // Their streams close: every one of them has ended.
        drop(execs);
        Ok(Deleted {
            pid: self.init.pid(),
            outcome,
        })
    }

    /// Forgets an exec'd process that is not running.
    pub async fn delete_exec(&self, id: &str) -> Result<Deleted, Error> {
        let exec = self.exec(id)?;
        let _starting = exec.process.hold_exit().await;
        let state = exec.state();
        if state == ExecState::Running {
            return Err(Error::ExecState {
                operation: "delete",
                exec: id.to_owned(),
                id: self.id.clone(),
                state,
            });
        }
        exec.process.drain(DRAIN).await;
        let removed = self.inner().execs.remove(id);
        if removed.is_none() {
            return Err(Error::NoProcess {
                exec: id.to_owned(),
                id: self.id.clone(),
            });
        }
        let outcome = exec.process.outcome().unwrap_or(Outcome::NotStarted);
        // Whoever still waits for one that was never started waits for nothing.
        exec.process.set_outcome(outcome);
        Ok(Deleted {
            pid: exec.process.pid(),
            outcome,
        })
    }
}
