//! Freezing and thawing.

use std::sync::Arc;

use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim_protos::topics;

use super::lifecycle::{Operation, State};
use super::{Container, Error};

impl Container {
    /// Freezes all its processes.
    pub async fn pause(&self) -> Result<(), Error> {
        let _alone = self.exclusive.write().await;
        self.allow(Operation::Pause)?;
        self.set_state(State::Pausing);
        let runtime = Arc::clone(&self.runtime);
        let frozen = self.shim.blocking(move || runtime.pause()).await;
        let frozen = frozen.and_then(|frozen| frozen.map_err(Error::runtime("pause", &self.id)));
        let ended = {
            let mut inner = self.inner();
            if inner.state == State::Pausing {
                inner.state = if frozen.is_ok() && !inner.init_reaped {
                    State::Paused
                } else {
                    State::Running
                };
            }
            inner.init_reaped
        };
        if frozen.is_err() || ended {
            // Half frozen, or with nobody left to thaw it: what is in it could not even be killed.
            self.step("resume", |runtime| runtime.resume()).await;
        }
        frozen?;
        if ended {
            return Err(Error::State {
                operation: Operation::Pause,
                id: self.id.clone(),
                state: State::Stopped,
            });
        }
        let event = TaskPaused {
            container_id: self.id.clone(),
            ..TaskPaused::new()
        };
        self.shim.publisher.publish(topics::TASK_PAUSED_EVENT_TOPIC, event);
        Ok(())
    }

    /// Thaws them.
    pub async fn resume(&self) -> Result<(), Error> {
        let _alone = self.exclusive.write().await;
        self.allow(Operation::Resume)?;
        let runtime = Arc::clone(&self.runtime);
        let thawed = self.shim.blocking(move || runtime.resume()).await?;
        thawed.map_err(Error::runtime("resume", &self.id))?;
        {
            let mut inner = self.inner();
            if inner.state == State::Paused {
                inner.state = State::Running;
            }
        }
        let event = TaskResumed {
            container_id: self.id.clone(),
            ..TaskResumed::new()
        };
        self.shim.publisher.publish(topics::TASK_RESUMED_EVENT_TOPIC, event);
        Ok(())
    }
}
