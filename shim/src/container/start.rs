//! Starting a created container's program.

use std::sync::Arc;

use containerd_shim_protos::events::task::TaskStart;
use containerd_shim_protos::topics;

use super::lifecycle::{Operation, State};
use super::{Container, Error};
use crate::rest;

impl Container {
    /// Lets init execute its program. Its pid.
    pub async fn start(self: &Arc<Self>) -> Result<u32, Error> {
        let _starting = self.init.hold_exit().await;
        self.allow(Operation::Start)?;
        self.init.starts().map_err(|source| Error::Streams {
            id: self.id.clone(),
            source,
        })?;
        let runtime = Arc::clone(&self.runtime);
        let started = self.shim.blocking(move || runtime.start()).await?;
        if self.runtime.helper().is_none() {
            // It was there until the start alone, and its pid may be another's by now.
            self.forget_helper();
        }
        started.map_err(Error::runtime("start", &self.id))?;
        self.set_state(State::Running);
        let pid = self.init.pid();
        let event = TaskStart {
            container_id: self.id.clone(),
            pid,
            ..TaskStart::new()
        };
        self.shim.publisher.publish(topics::TASK_START_EVENT_TOPIC, event);
        rest::soon();
        Ok(pid)
    }
}
