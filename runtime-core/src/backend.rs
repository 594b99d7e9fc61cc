//! What runs a container: the traits that the native runtime and gVisor implement, each beside its own code. This is
//! the one place that knows there are two.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime as oci;

use crate::cgroup::{self, Cgroup, OomWatch};
pub use crate::native::{Executable, ExitStatus, Owner, Stdio};
use crate::plan::{self, Namespace, Plan};
use crate::policy::{Policy, Runtime};
use crate::{attest, egress, gvisor, hooks, host, native};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The native runtime.
    #[error(transparent)]
    Native(#[from] native::Error),
    /// gVisor.
    #[error(transparent)]
    Gvisor(#[from] gvisor::Error),
    /// The image is not what it has to be.
    #[error(transparent)]
    Attest(#[from] attest::Error),
    /// The rules for what leaves the pod.
    #[error(transparent)]
    Egress(#[from] egress::Error),
    /// The container's cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}

impl Error {
    /// Whether what was asked for is at fault: something that this runtime does not have.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Gvisor(error) if error.is_refusal())
    }
}

/// Which runtime containers get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The kernel's own means.
    #[default]
    Native,
    /// gVisor, run like this.
    Gvisor(Box<gvisor::Config>),
}

impl Choice {
    /// What the policy says.
    pub fn of(policy: &Policy) -> Self {
        match policy.runtime.value {
            Runtime::Native => Self::Native,
            Runtime::Gvisor => Self::Gvisor(Box::new(gvisor::Config::of(policy))),
        }
    }

    /// Capabilities that processes can have, one bit each: a sentry's are its own.
    pub fn capabilities(&self) -> u64 {
        match self {
            Self::Native => host::capabilities(),
            Self::Gvisor(_) => u64::MAX,
        }
    }

    /// What a caller may put into config.json.
    pub fn features(&self) -> serde_json::Value {
        match self {
            Self::Native => host::features(),
            Self::Gvisor(_) => gvisor::features(),
        }
    }
}

/// What all containers of one shim share.
#[derive(Debug, Default)]
pub struct Backends {
    executable: Mutex<Option<Arc<Executable>>>,
    sandboxes: gvisor::Sandboxes,
}

impl Backends {
    /// Creates a container: when this returns, its first process waits for [`Container::start`]. On error nothing is
    /// left.
    ///
    /// # Errors
    /// Whatever stands in the way, by its own text.
    pub fn create(
        &self,
        choice: &Choice,
        plan: &Plan,
        owner: &Owner,
        stdio: Stdio,
    ) -> Result<(Arc<dyn Container>, Launched), Error> {
        attest::check(plan)?;
        // Before anything of the container is there. A network namespace that is yet to be made is the native
        // runtime's.
        if let (Some(allowed), Namespace::Path(path)) = (&plan.container.egress, &plan.container.namespaces.net) {
            egress::enforce_at(path, allowed)?;
        }
        let executable = self.executable()?;
        Ok(match choice {
            Choice::Native => {
                let (container, launched) = native::create(&executable, plan, owner, stdio)?;
                (Arc::new(container), launched.into())
            }
            Choice::Gvisor(config) => {
                let (container, launched) =
                    gvisor::Container::create(&self.sandboxes, &executable, config, plan, owner, stdio)?;
                (Arc::new(container), launched.into())
            }
        })
    }

    /// Makes a pod's sandbox: its process and what ends it. On error nothing is left.
    ///
    /// # Errors
    /// Whatever stands in the way, by its own text.
    pub fn create_sandbox(
        &self,
        sandbox: &plan::Sandbox,
        owner: &Owner,
    ) -> Result<(native::Sandbox, Arc<dyn Process>), Error> {
        let executable = self.executable()?;
        let (made, process) = native::Sandbox::create(&executable, sandbox, owner)?;
        Ok((made, Arc::new(process)))
    }

    /// The binary that holders and launchers are executed from; cloned once.
    fn executable(&self) -> Result<Arc<Executable>, native::Error> {
        let mut executable = self.executable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(executable) = executable.as_ref() {
            return Ok(Arc::clone(executable));
        }
        let detached = Arc::new(Executable::detach()?);
        *executable = Some(Arc::clone(&detached));
        Ok(detached)
    }
}

/// A process just made, and the master side of its pseudo terminal if it has one.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Launched {
    pub process: Arc<dyn Process>,
    pub console: Option<OwnedFd>,
    /// What of the container's mounts is not as it was meant, where the policy lets it go on.
    pub differences: Vec<String>,
}

/// A container's first process, or one that was exec'd.
pub trait Process: Debug + Send + Sync {
    /// The pid that stands for it on the host.
    fn pid(&self) -> i32;

    /// Readable once it has ended, and from then on.
    fn end(&self) -> &OwnedFd;

    /// Sends a signal; Ok(false) where it has ended. May block.
    ///
    /// # Errors
    /// The kernel's, or the sentry's.
    fn signal(&self, signal: i32) -> Result<bool, Error>;

    /// How it ended, if it has; may be asked again.
    ///
    /// # Errors
    /// The kernel's.
    fn try_wait(&self) -> Result<Option<ExitStatus>, Error>;
}

/// A created container. Its operations block, and fail by the runtime's own errors.
#[allow(clippy::missing_errors_doc)]
pub trait Container: Debug + Send + Sync {
    /// Lets the first process execute its program.
    fn start(&self) -> Result<(), Error>;

    /// Starts a process beside the first: `process`, which `given` was translated into.
    fn exec(&self, process: &plan::Process, given: &oci::Process, stdio: Stdio) -> Result<Launched, Error>;

    /// Sends a signal to `init`, the first process; Ok(false) where it has ended.
    fn signal(&self, init: &dyn Process, signal: i32) -> Result<bool, Error>;

    /// Sends a signal to every process.
    fn signal_all(&self, signal: i32) -> Result<(), Error>;

    /// Stops every process.
    fn pause(&self) -> Result<(), Error>;

    /// Lets them go on.
    fn resume(&self) -> Result<(), Error>;

    /// Sets limits on a living container; what is not named stays.
    fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error>;

    /// What it used so far; after its end too, until it is deleted.
    fn stats(&self) -> Result<cgroup::Stats, Error>;

    /// Arms a watch for kills for want of memory.
    fn watch_oom(&self) -> Result<OomWatch, Error>;

    /// The container's cgroups.
    fn cgroup(&self) -> &Cgroup;

    /// The host's pids of its processes, or those that stand for them.
    fn pids(&self) -> Result<Vec<i32>, Error>;

    /// Whether all its processes end with the first.
    fn ends_with_init(&self) -> bool;

    /// A child of ours that is no process of the container's: for whoever reaps orphans.
    fn helper(&self) -> Option<i32>;

    /// Ends the helper, if there is one.
    fn end_helper(&self) -> Result<(), Error>;

    /// After the first process was reaped: removes what is left, and runs poststop hooks, whose failures it returns.
    /// Bounded; done again, it does no harm.
    fn delete(&self) -> Result<Vec<hooks::Error>, Error>;
}
