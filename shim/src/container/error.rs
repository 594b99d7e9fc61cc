//! Why an operation on a container failed.

use runtime_core::security::seccomp::named;
use runtime_core::{audit, backend, bundle, plan, policy};

use super::lifecycle::{ExecState, Operation, State};
use crate::io;

/// Each variant names the container, and the process where it is about one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation makes no sense now.
    #[error("cannot {operation} container {id}: it is {state}")]
    State {
        /// What was asked for.
        operation: Operation,
        /// The container.
        id: String,
        /// Where it is in its life.
        state: State,
    },
    /// The operation on an exec'd process makes no sense now.
    #[error("cannot {operation} process {exec} of container {id}: it is {state}")]
    ExecState {
        /// What was asked for.
        operation: &'static str,
        /// The process.
        exec: String,
        /// The container.
        id: String,
        /// Where it is in its life.
        state: ExecState,
    },
    /// A process cannot be started beside an init that has ended.
    #[error("cannot exec in container {id}: its init process is not running")]
    InitEnded {
        /// The container.
        id: String,
    },
    /// The container has no process of that name.
    #[error("process {exec} of container {id} does not exist")]
    NoProcess {
        /// The process.
        exec: String,
        /// The container.
        id: String,
    },
    /// The name is taken.
    #[error("process {exec} of container {id} already exists")]
    ProcessExists {
        /// The process.
        exec: String,
        /// The container.
        id: String,
    },
    /// There is nothing to signal yet.
    #[error("process {exec} of container {id} is not created")]
    NotStarted {
        /// The process.
        exec: String,
        /// The container.
        id: String,
    },
    /// There is nothing to signal any more. Clients look for these words.
    #[error("process already finished")]
    Finished,
    /// Containers come after their pod's sandbox, and go before it.
    #[error("cannot create container {id}: the sandbox of its pod is not running")]
    NoPod {
        /// The container.
        id: String,
    },
    /// A sentry brings a sandbox of its own.
    #[error(
        "container {id}: runtime = \"gvisor\" cannot be had with sandboxer = \"shim\": a sentry needs the pod's pause \
         container; \
         remove the sandboxer from the handler in containerd's configuration"
    )]
    GvisorInPod {
        /// The container.
        id: String,
    },
    /// Not a signal.
    #[error("{signal} is not a signal")]
    NoSignal {
        /// As it was given.
        signal: u32,
    },
    /// The container went while it was asked for.
    #[error("container {id} is deleted")]
    Deleted {
        /// The container.
        id: String,
    },
    /// The process of an exec request.
    #[error("exec {exec} in container {id}")]
    ExecSpec {
        /// The process.
        exec: String,
        /// The container.
        id: String,
        /// Where it is wrong.
        source: bundle::Error,
    },
    /// The resources of an update request.
    #[error("parse the resources for container {id}")]
    Resources {
        /// The container.
        id: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A directory of the bundle cannot be made.
    #[error("make {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// config.json.
    #[error("OCI runtime create failed: read the bundle of container {id}")]
    Bundle {
        /// The container.
        id: String,
        /// What is wrong with it.
        source: bundle::Error,
    },
    /// The spec asks for what cannot be done.
    #[error("OCI runtime create failed: container {id} cannot be run as its spec says")]
    Plan {
        /// The container.
        id: String,
        /// What is refused.
        source: plan::Error,
    },
    /// The node's configuration, which says what a container may be.
    #[error("OCI runtime create failed: container {id}")]
    Node {
        /// The container.
        id: String,
        /// What is wrong with it.
        source: policy::node::Error,
    },
    /// The pod asks for what the node does not allow.
    #[error("OCI runtime create failed: container {id}")]
    Policy {
        /// The container.
        id: String,
        /// What is refused.
        source: policy::Error,
    },
    /// A policy file that the policy names.
    #[error("OCI runtime create failed: container {id}")]
    PolicyFile {
        /// The container.
        id: String,
        /// What is wrong with it.
        source: policy::profiles::Error,
    },
    /// A filter of system calls that the policy names.
    #[error("OCI runtime create failed: container {id}")]
    Profile {
        /// The container.
        id: String,
        /// What is wrong with it.
        source: named::Error,
    },
    /// The audit trail, which has to have it first.
    #[error("OCI runtime create failed: container {id} and what is run in it cannot be written down")]
    Audit {
        /// The container.
        id: String,
        /// Why not.
        source: audit::Error,
    },
    /// An exec's process asks for what cannot be done.
    #[error("OCI runtime exec failed: process {exec} of container {id} cannot be run as asked for")]
    ExecPlan {
        /// The process.
        exec: String,
        /// The container.
        id: String,
        /// What is refused.
        source: plan::Error,
    },
    /// A stream.
    #[error("open the streams of container {id}")]
    Streams {
        /// The container.
        id: String,
        /// Which, and why.
        source: io::Error,
    },
    /// The console's size.
    #[error("resize the console of container {id}")]
    Resize {
        /// The container.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The runtime.
    #[error("OCI runtime {operation} failed: container {id}")]
    Runtime {
        /// What was being done.
        operation: &'static str,
        /// The container.
        id: String,
        /// Why it failed. Boxed, as it is far larger than the rest.
        source: Box<backend::Error>,
    },
    /// No thread to do it on.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// A thread of ours panicked.
    #[error("internal error: the operation panicked")]
    Panicked,
}

impl Error {
    /// Makes the runtime's error while doing `operation` to container `id` one of ours.
    pub(super) fn runtime(operation: &'static str, id: &str) -> impl FnOnce(backend::Error) -> Self {
        move |source| Self::Runtime {
            operation,
            id: id.to_owned(),
            source: Box::new(source),
        }
    }
}
