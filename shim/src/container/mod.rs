//! A container and its processes: what the shim knows of them beyond what runtime-core does.
//!
//! Everything here runs on one thread and takes its locks for a moment only, never across an await; what blocks goes
//! through [`Shim::blocking`].

mod audit;
mod create;
mod delete;
mod error;
mod exec;
pub mod exit;
pub mod lifecycle;
mod oom;
mod pause;
mod process;
mod resources;
mod signal;
mod start;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime_core::backend;
use runtime_core::plan::Plan;
use tokio::sync::watch;

pub use create::Request as CreateRequest;
pub use delete::Deleted;
pub use error::Error;
pub use exec::{Exec, ExecRequest};
pub use process::{Outcome, Process, Streams, reap};
pub use signal::Target;

use crate::reaper::Child;
use crate::shim::Shim;
use lifecycle::{ExecState, Operation, State};

/// One container, from after it was created until it was deleted.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its first process.
    pub init: Process,
    shim: Arc<Shim>,
    runtime: Arc<dyn backend::Container>,
    /// Until the holder was reaped.
    helper: Mutex<Option<Child>>,
    plan: Arc<Plan>,
    io_owner: (u32, u32),
    inner: Mutex<Inner>,
    running_execs: watch::Sender<usize>,
    oom: Mutex<Option<oom::Watching>>,
    /// Starting an exec'd process holds it shared, pausing, resuming and deleting hold it alone: a process that is
    /// started into a frozen cgroup would never answer.
    exclusive: tokio::sync::RwLock<()>,
    /// Killing the whole of it holds this shared. Its first process may be gone, and its exit told, before every other
    /// one has been found: containerd 1.6 closes the connection once Delete is answered, so that waits for the kill.
    killing: tokio::sync::RwLock<()>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Init was reaped; its exit may still be held back by exec'd processes. No new ones may be started.
    init_reaped: bool,
    deleted: bool,
    execs: HashMap<String, Arc<Exec>>,
}

impl Container {
    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.inner().state
    }

    fn set_state(&self, state: State) {
        self.inner().state = state;
    }

    /// An error unless `operation` makes sense now.
    fn allow(&self, operation: Operation) -> Result<(), Error> {
        let inner = self.inner();
        if inner.deleted {
            return Err(Error::Deleted { id: self.id.clone() });
        }
        if inner.state.allows(operation) {
            return Ok(());
        }
        Err(Error::State {
            operation,
            id: self.id.clone(),
            state: inner.state,
        })
    }

    /// From now on no process can be started in it. Its state until now.
    fn init_reaped(&self) -> State {
        let mut inner = self.inner();
        inner.init_reaped = true;
        inner.state
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held ends the shim in release builds; in tests what is there is still valid.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that a request means: init where `exec` is empty.
    pub fn process(&self, exec: &str) -> Result<Found, Error> {
        if exec.is_empty() {
            Ok(Found::Init)
        } else {
            self.exec(exec).map(Found::Exec)
        }
    }

    /// The exec'd process of that name.
    pub fn exec(&self, exec: &str) -> Result<Arc<Exec>, Error> {
        let found = self.inner().execs.get(exec).cloned();
        found.ok_or_else(|| Error::NoProcess {
            exec: exec.to_owned(),
            id: self.id.clone(),
        })
    }

    /// Sets the size of a process's console. Nothing to do without one.
    pub fn resize(&self, exec: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let found = self.process(exec)?;
        if let Found::Exec(exec) = &found
            && exec.state() == ExecState::Stopped
        {
            let (exec, id, state) = (exec.id.clone(), self.id.clone(), ExecState::Stopped);
            return Err(Error::ExecState {
                operation: "resize",
                exec,
                id,
                state,
            });
        }
        let resized = found.of(self).resize(rows, columns);
        resized.map_err(|source| Error::Resize {
            id: self.id.clone(),
            source,
        })
    }

    /// Reaps the holder if it has `pid` and has ended. Whether it has.
    pub fn end_helper(&self, pid: i32) -> bool {
        if self.runtime.helper() != Some(pid) || self.helper().is_none() {
            return false;
        }
        if let Err(error) = self.runtime.end_helper() {
            log::warn!(
                "reap the holder of container {}: {}",
                self.id,
                crate::service::errors::chain(&error)
            );
        }
        self.forget_helper();
        true
    }

    pub(super) fn forget_helper(&self) {
        self.helper().take();
    }

    fn helper(&self) -> MutexGuard<'_, Option<Child>> {
        self.helper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until_no_exec_runs(&self) {
        let mut running = self.running_execs.subscribe();
        // The sender is part of `self`: it cannot go away meanwhile.
        let _ = running.wait_for(|running| *running == 0).await;
    }

    fn exec_ended(&self) {
        self.running_execs.send_modify(|running| *running -= 1);
    }

    /// Does something to the container's cgroups that init's end asks for: an error is logged, as there is nobody to
    /// tell.
    async fn step(
        &self,
        operation: &'static str,
        step: impl FnOnce(&dyn backend::Container) -> Result<(), backend::Error> + Send + 'static,
    ) {
        let runtime = Arc::clone(&self.runtime);
        let done = self.shim.blocking(move || step(&*runtime)).await;
        let done = done.and_then(|done| done.map_err(Error::runtime(operation, &self.id)));
        if let Err(error) = done {
            log::warn!("{}", crate::service::errors::chain(&error));
        }
    }
}

/// Init or an exec'd process.
#[derive(Debug, Clone)]
pub enum Found {
    /// The container's first process.
    Init,
    /// Another one.
    Exec(Arc<Exec>),
}

impl Found {
    /// The process itself.
    pub fn of<'a>(&'a self, container: &'a Container) -> &'a Process {
        match self {
            Self::Init => &container.init,
            Self::Exec(exec) => &exec.process,
        }
    }
}
