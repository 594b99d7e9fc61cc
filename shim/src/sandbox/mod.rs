//! A pod's sandbox, where containerd leaves that to the shim (`sandboxer = "shim"`): what the shim knows of it.

pub mod config;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use runtime_core::backend::{self, Choice};
use runtime_core::cgroup::{self, Stats};
use runtime_core::policy::{self, Layer};
use runtime_core::{native, plan, pod_files};
use tokio::sync::watch;

use crate::container::exit::Exit;
use crate::container::{self, Outcome, reap};
use crate::reaper::Child;
use crate::service::errors::chain;
use crate::shim::Shim;
use config::PodConfig;

/// Directory of the pod's files, below the bundle.
const FILES: &str = "etc";

/// What a CreateSandbox request asks for.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Request {
    pub id: String,
    pub bundle: PathBuf,
    pub network: String,
    pub config: PodConfig,
}

/// Why an operation on a sandbox failed. Each variant names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// CRI asks for what cannot be done.
    #[error("sandbox {id} cannot be made as its config says")]
    Plan { id: String, source: plan::Error },
    /// The node's configuration, which says what runs its containers.
    #[error("read the node's configuration for sandbox {id}")]
    Node { id: String, source: policy::node::Error },
    /// A sentry brings a sandbox of its own.
    #[error(
        "sandbox {id}: runtime = \"gvisor\" cannot be had with sandboxer = \"shim\": a sentry needs the pod's pause \
         container; \
         remove the sandboxer from the handler in containerd's configuration"
    )]
    Gvisor { id: String },
    /// The pod's files.
    #[error("make the files of sandbox {id}")]
    Files { id: String, source: pod_files::Error },
    /// It cannot be started again, nor after it was stopped.
    #[error("cannot start sandbox {id}: it is {state}")]
    State { id: String, state: &'static str },
    /// The host, or the kernel.
    #[error("{operation} sandbox {id}")]
    Runtime {
        operation: &'static str,
        id: String,
        source: backend::Error,
    },
    /// What the pod used.
    #[error("read the statistics of sandbox {id}")]
    Stats { id: String, source: cgroup::Error },
    /// No thread, or one that panicked.
    #[error(transparent)]
    Work(#[from] container::Error),
}

/// One pod, from CreateSandbox to ShutdownSandbox.
pub struct Sandbox {
    /// Its id.
    pub id: String,
    plan: plan::Sandbox,
    files: PathBuf,
    inner: Mutex<Inner>,
    outcome: watch::Sender<Option<Outcome>>,
    /// Starting and stopping it are one after another.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    runtime: Arc<native::Sandbox>,
    pid: u32,
    at: SystemTime,
}

/// What is told of it.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Status {
    pub pid: u32,
    pub ready: bool,
    pub created_at: Option<SystemTime>,
    pub exit: Option<Exit>,
}

impl Sandbox {
    /// Decides how it will be and writes its files; nothing of it runs yet.
    pub async fn create(shim: &Shim, request: Request) -> Result<Arc<Self>, Error> {
        let sandbox = shim.blocking(move || prepare(request)).await??;
        Ok(Arc::new(sandbox))
    }

    /// Makes its process.
    pub async fn start(self: &Arc<Self>, shim: &Arc<Shim>) -> Result<Status, Error> {
        let _alone = self.changing.lock().await;
        if self.outcome.borrow().is_some() || self.inner().started.is_some() {
            let state = if self.status().ready { "running" } else { "stopped" };
            return Err(Error::State {
                id: self.id.clone(),
                state,
            });
        }
        let made = {
            let (of, shim_) = (Arc::clone(self), Arc::clone(shim));
            shim.blocking(move || shim_.backends.create_sandbox(&of.plan, &shim_.owner))
                .await?
        };
        let (runtime, process) = made.map_err(self.failed("start"))?;
        let child = Child::register(process.pid());
        self.inner().started = Some(Started {
            runtime: Arc::new(runtime),
            pid: process.pid() as u32,
            at: SystemTime::now(),
        });
        tokio::spawn(follow(Arc::clone(self), Arc::clone(shim), process, child));
        Ok(self.status())
    }

    /// Ends it. Done again, it does no harm.
    pub async fn stop(&self, shim: &Shim) -> Result<(), Error> {
        let _alone = self.changing.lock().await;
        let runtime = self
            .inner()
            .started
            .as_ref()
            .map(|started| Arc::clone(&started.runtime));
        let Some(runtime) = runtime else {
            self.outcome.send_replace(Some(Outcome::NotStarted));
            shim.sandbox_ended();
            return Ok(());
        };
        runtime.kill().map_err(|error| self.failed("stop")(error.into()))?;
        self.wait().await;
        let forgotten = shim.blocking(move || runtime.forget()).await?;
        forgotten.map_err(|error| self.failed("stop")(error.into()))
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        // The sender is part of `self`: it cannot go away meanwhile.
        let ended = outcome.wait_for(Option::is_some).await;
        ended.ok().and_then(|outcome| *outcome).unwrap_or(Outcome::NeverRan)
    }

    /// Where it is in its life.
    pub fn status(&self) -> Status {
        let outcome = *self.outcome.borrow();
        let inner = self.inner();
        let started = inner.started.as_ref();
        Status {
            pid: started.map_or(0, |started| started.pid),
            ready: started.is_some() && outcome.is_none(),
            created_at: started.map(|started| started.at),
            exit: match outcome {
                Some(Outcome::Exited(exit)) => Some(exit),
                _ => None,
            },
        }
    }

    /// What its containers find in it; None unless it runs.
    pub fn pod(&self) -> Option<plan::Pod> {
        let status = self.status();
        status.ready.then(|| plan::Pod {
            files: self.files.clone(),
            memory: self
                .plan
                .shares_memory
                .then(|| PathBuf::from(format!("/proc/{}/ns/mnt", status.pid))),
        })
    }

    /// The spec that it amounts to.
    pub fn spec(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.plan.spec)
    }

    /// What all of the pod used, by its own cgroup; None where whoever asked for the pod made it none.
    pub async fn stats(&self, shim: &Shim) -> Result<Option<Stats>, Error> {
        let Some(parent) = self.plan.cgroup_parent.clone() else {
            return Ok(None);
        };
        let stats = shim.blocking(move || cgroup::pod_stats(&parent)).await?;
        stats.map(Some).map_err(|source| Error::Stats {
            id: self.id.clone(),
            source,
        })
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(backend::Error) -> Error {
        let id = self.id.clone();
        move |source| Error::Runtime { operation, id, source }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether containers of this layer and the node's could be in a shim's sandbox.
pub fn check_runtime(id: &str, handler: &Layer) -> Result<(), Error> {
    let node = policy::node::read().map_err(|source| Error::Node {
        id: id.to_owned(),
        source,
    })?;
    // A layer that contradicts the node's is told with the first container.
    match policy::resolve(&node, handler, []).map(|policy| Choice::of(&policy)) {
        Ok(Choice::Gvisor(_)) => Err(Error::Gvisor { id: id.to_owned() }),
        Ok(Choice::Native) | Err(_) => Ok(()),
    }
}

fn prepare(request: Request) -> Result<Sandbox, Error> {
    let Request {
        id,
        bundle,
        network,
        config,
    } = request;
    check_runtime(&id, &Layer::default())?;
    let plan = plan::translate_sandbox(&config.sandbox, &id, &bundle, &network)
        .map_err(|source| Error::Plan { id: id.clone(), source })?;
    let files = bundle.join(FILES);
    let written = pod_files::write(
        Path::new(&files),
        &config.sandbox.hostname,
        config.dns.as_ref(),
        plan.root,
    );
    written.map_err(|source| Error::Files { id: id.clone(), source })?;
    Ok(Sandbox {
        id,
        plan,
        files,
        inner: Mutex::default(),
        outcome: watch::Sender::new(None),
        changing: tokio::sync::Mutex::default(),
    })
}

/// Follows its process to the end, whoever ends it.
async fn follow(sandbox: Arc<Sandbox>, shim: Arc<Shim>, process: Arc<dyn backend::Process>, child: Child) {
    let exit = reap(process, child).await;
    sandbox.outcome.send_replace(Some(Outcome::Exited(exit)));
    shim.sandbox_ended();
    log::debug!("sandbox {} has ended", sandbox.id);
}

/// Removes what containers are left in the pod, by force: their errors are logged, as the shim ends all the same.
pub async fn remove_containers(shim: &Shim) {
    for container in shim.containers() {
        let killed = container.kill(container::Target::All, libc::SIGKILL as u32).await;
        match killed {
            Ok(()) | Err(container::Error::Finished) => {}
            Err(error) => log::warn!("{}", chain(&error)),
        }
        if let Err(error) = container.delete().await {
            log::warn!("{}", chain(&error));
        }
        shim.remove(&container.id);
    }
}
