//! Processes beside init.

use std::sync::{Arc, Mutex, PoisonError};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use containerd_shim_protos::topics;
use oci_spec::runtime as oci;
use runtime_core::backend::Launched;
use runtime_core::{bundle, plan};

use super::audit::Subject;
use super::lifecycle::{ExecState, Operation};
use super::process::{Outcome, Process, Streams};
use super::{Container, Error, create, exit};
use crate::io::Io;
use crate::reaper::Child;

/// An exec'd process, from before it is started until it is deleted.
#[derive(Debug)]
pub struct Exec {
    /// Its id within the container.
    pub id: String,
    /// The process.
    pub process: Process,
    state: Mutex<ExecState>,
    /// What to run; taken when it is started.
    spec: Mutex<Option<Box<oci::Process>>>,
}

/// What an Exec request asks for.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ExecRequest {
    pub id: String,
    pub streams: Streams,
    /// JSON of an OCI process.
    pub spec: Vec<u8>,
}

impl Exec {
    /// Where it is in its life.
    pub fn state(&self) -> ExecState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_state(&self, state: ExecState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn take_spec(&self) -> Option<Box<oci::Process>> {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Container {
    /// Makes a process known; it is started later.
    pub fn add_exec(&self, request: ExecRequest) -> Result<(), Error> {
        let ExecRequest { id, streams, spec } = request;
        self.allow(Operation::Exec)?;
        let mut spec = bundle::process(&spec).map_err(|source| Error::ExecSpec {
            exec: id.clone(),
            id: self.id.clone(),
            source,
        })?;
        // The request decides, as it is what the streams were made for.
        spec.set_terminal(Some(streams.terminal));
        let exec = Arc::new(Exec {
            process: Process::new(streams),
            state: Mutex::new(ExecState::Created),
            spec: Mutex::new(Some(Box::new(spec))),
            id: id.clone(),
        });
        {
            let mut inner = self.inner();
            if inner.execs.contains_key(&id) {
                return Err(Error::ProcessExists {
                    exec: id,
                    id: self.id.clone(),
                });
            }
            inner.execs.insert(id.clone(), exec);
        }
        let event = TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: id,
            ..TaskExecAdded::new()
        };
        self.shim.publisher.publish(topics::TASK_EXEC_ADDED_EVENT_TOPIC, event);
        Ok(())
    }

    /// Starts a known process. Its pid.
    pub async fn start_exec(self: &Arc<Self>, id: &str) -> Result<u32, Error> {
        let exec = self.exec(id)?;
        let _shared = self.exclusive.read().await;
        let _starting = exec.process.hold_exit().await;
        self.reserve_exec_start(&exec)?;
        if let Err(error) = self.launch(&exec).await {
            exec.set_state(ExecState::Failed);
            exec.process.set_outcome(Outcome::NeverRan);
            self.exec_ended();
            let (container, of) = (Arc::clone(self), Arc::clone(&exec));
            let told = self.shim.blocking(move || {
                container.subject(&of).fail(&container.plan.policy.audit.value, &error);
                error
            });
            return Err(told.await?);
        }
        exec.set_state(ExecState::Running);
        let pid = exec.process.pid();
        let event = TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: exec.id.clone(),
            pid,
            ..TaskExecStarted::new()
        };
        self.shim
            .publisher
            .publish(topics::TASK_EXEC_STARTED_EVENT_TOPIC, event);
        Ok(pid)
    }

    /// Counts it as running from before it is: init's exit must not be told between.
    fn reserve_exec_start(&self, exec: &Exec) -> Result<(), Error> {
        self.allow(Operation::Exec)?;
        if self.inner().init_reaped {
            return Err(Error::InitEnded { id: self.id.clone() });
        }
        let state = exec.state();
        if state != ExecState::Created {
            return Err(Error::ExecState {
                operation: "start",
                exec: exec.id.clone(),
                id: self.id.clone(),
                state,
            });
        }
        self.running_execs.send_modify(|running| *running += 1);
        Ok(())
    }

    fn subject<'a>(&'a self, exec: &'a Exec) -> Subject<'a> {
        Subject {
            shim: &self.shim,
            id: &self.id,
            exec: Some(&exec.id),
        }
    }

    async fn launch(self: &Arc<Self>, exec: &Arc<Exec>) -> Result<(), Error> {
        let refused = |source| Error::ExecPlan {
            exec: exec.id.clone(),
            id: self.id.clone(),
            source,
        };
        let no_streams = |source| Error::Streams {
            id: self.id.clone(),
            source,
        };
        let spec = exec.take_spec().ok_or_else(|| Error::NotStarted {
            exec: exec.id.clone(),
            id: self.id.clone(),
        })?;
        let process = plan::translate_exec(&self.plan, &spec).map_err(refused)?;
        let streams = create::spec(&self.shim, &self.id, &exec.process.streams, self.io_owner);
        let (mut io, stdio) = Io::open(streams).await.map_err(no_streams)?;
        let (container, of) = (Arc::clone(self), Arc::clone(exec));
        let launched = self
            .shim
            .blocking(move || {
                container.subject(&of).allow(&container.plan.policy, &process)?;
                let launched = container.runtime.exec(&process, &spec, stdio);
                launched.map_err(Error::runtime("exec", &container.id))
            })
            .await?;
        let Launched { process, console, .. } = launched?;
        let child = Child::register(process.pid());
        let attached = console
            .map_or(Ok(()), |master| io.attach_console(master))
            .and_then(|()| io.process_starts());
        exec.process.launched(Arc::clone(&process), io);
        tokio::spawn(exit::follow_exec(Arc::clone(self), Arc::clone(exec), process, child));
        if let Err(error) = attached {
            // It runs, only nobody sees what it writes: its client finds out by the end of its stream.
            log::error!(
                "attach the streams of process {} of container {}: {error}",
                exec.id,
                self.id
            );
        }
        Ok(())
    }
}
