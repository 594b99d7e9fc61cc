//! What runs a container: one face over the native runtime and gVisor. This is the one place that knows there are two.

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
    /// Creates a container: when this returns, its first process waits for [`Container::start`]. On error nothing is left.
    ///
    /// # Errors
    /// Whatever stands in the way, by its own text.
    pub fn create(
        &self,
        choice: &Choice,
        plan: &Plan,
        owner: &Owner,
        stdio: Stdio,
    ) -> Result<(Container, Launched), Error> {
        attest::check(plan)?;
        // Before anything of the container is there. A network namespace that is yet to be made is the native runtime's.
        if let (Some(allowed), Namespace::Path(path)) = (&plan.container.egress, &plan.container.namespaces.net) {
            egress::enforce_at(path, allowed)?;
        }
        let executable = self.executable()?;
        Ok(match choice {
            Choice::Native => {
                let (container, launched) = native::create(&executable, plan, owner, stdio)?;
                (Container::Native(container), launched.into())
            }
            Choice::Gvisor(config) => {
                let created = gvisor::Container::create(&self.sandboxes, &executable, config, plan, owner, stdio)?;
                (Container::Gvisor(created.0), created.1.into())
            }
        })
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
    pub process: Process,
    pub console: Option<OwnedFd>,
    /// What of the container's mounts is not as it was meant, where the policy lets it go on.
    pub differences: Vec<String>,
}

impl From<native::Launched> for Launched {
    fn from(launched: native::Launched) -> Self {
        Self {
            process: Process::Native(launched.process),
            console: launched.console,
            differences: launched.differences,
        }
    }
}

impl From<gvisor::Launched> for Launched {
    fn from(launched: gvisor::Launched) -> Self {
        Self {
            process: Process::Gvisor(launched.process),
            console: launched.console,
            differences: Vec::new(),
        }
    }
}

/// A container's first process, or one that was exec'd.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Process {
    Native(native::Process),
    Gvisor(Arc<gvisor::Process>),
}

impl Process {
    /// The pid that stands for it on the host.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Native(process) => process.pid(),
            Self::Gvisor(process) => process.pid(),
        }
    }

    /// Readable once it has ended, and from then on.
    pub fn end(&self) -> &OwnedFd {
        match self {
            Self::Native(process) => process.pidfd(),
            Self::Gvisor(process) => process.end(),
        }
    }

    /// Sends a signal; Ok(false) where it has ended. May block.
    pub fn signal(&self, signal: i32) -> Result<bool, Error> {
        Ok(match self {
            Self::Native(process) => process.signal(signal)?,
            Self::Gvisor(process) => process.signal(signal)?,
        })
    }

    /// How it ended, if it has; may be asked again.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        Ok(match self {
            Self::Native(process) => process.try_wait()?,
            Self::Gvisor(process) => process.try_wait()?,
        })
    }
}

/// A created container. Its operations block.
#[derive(Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Container {
    Native(native::Container),
    Gvisor(gvisor::Container),
}

impl Container {
    /// Lets the first process execute its program.
    pub fn start(&self) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.start()?,
            Self::Gvisor(container) => container.start()?,
        }
        Ok(())
    }

    /// Starts a process beside the first: `process`, which `given` was translated into.
    pub fn exec(&self, process: &plan::Process, given: &oci::Process, stdio: Stdio) -> Result<Launched, Error> {
        Ok(match self {
            Self::Native(container) => container.exec(process, stdio)?.into(),
            Self::Gvisor(container) => container.exec(process, given, stdio)?.into(),
        })
    }

    /// Sends a signal to `init`, the first process; Ok(false) where it has ended.
    pub fn signal(&self, init: &Process, signal: i32) -> Result<bool, Error> {
        Ok(match self {
            Self::Native(_) => init.signal(signal)?,
            Self::Gvisor(container) => container.signal(signal)?,
        })
    }

    /// Sends a signal to every process.
    pub fn signal_all(&self, signal: i32) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.cgroup().kill(signal)?,
            Self::Gvisor(container) => container.signal_all(signal)?,
        }
        Ok(())
    }

    /// Stops every process.
    pub fn pause(&self) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.cgroup().freeze()?,
            Self::Gvisor(container) => container.pause()?,
        }
        Ok(())
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.cgroup().thaw()?,
            Self::Gvisor(container) => container.resume()?,
        }
        Ok(())
    }

    /// Sets limits on a living container; what is not named stays.
    pub fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.cgroup().update(resources)?,
            Self::Gvisor(container) => container.update(resources)?,
        }
        Ok(())
    }

    /// What it used so far; after its end too, until it is deleted.
    pub fn stats(&self) -> Result<cgroup::Stats, Error> {
        Ok(match self {
            Self::Native(container) => container.cgroup().stats()?,
            Self::Gvisor(container) => container.stats()?,
        })
    }

    /// Arms a watch for kills for want of memory.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        Ok(match self {
            Self::Native(container) => container.cgroup().watch_oom()?,
            Self::Gvisor(container) => container.watch_oom()?,
        })
    }

    /// The container's cgroups.
    pub fn cgroup(&self) -> &Cgroup {
        match self {
            Self::Native(container) => container.cgroup(),
            Self::Gvisor(container) => container.cgroup(),
        }
    }

    /// The host's pids of its processes, or those that stand for them.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        Ok(match self {
            Self::Native(container) => container.cgroup().pids()?,
            Self::Gvisor(container) => container.pids(),
        })
    }

    /// Whether all its processes end with the first.
    pub fn ends_with_init(&self) -> bool {
        match self {
            Self::Native(container) => container.has_own_pid_namespace(),
            Self::Gvisor(_) => true,
        }
    }

    /// A child of ours that is no process of the container's: for whoever reaps orphans.
    pub fn helper(&self) -> Option<i32> {
        match self {
            Self::Native(container) => Some(container.holder_pid()),
            Self::Gvisor(container) => container.place(),
        }
    }

    /// Ends the helper, if there is one.
    pub fn end_helper(&self) -> Result<(), Error> {
        match self {
            Self::Native(container) => container.end_holder()?,
            Self::Gvisor(container) => container.end_place()?,
        }
        Ok(())
    }

    /// After the first process was reaped: removes what is left, and runs poststop hooks, whose failures it returns. Bounded;
    /// done again, it does no harm.
    pub fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        Ok(match self {
            Self::Native(container) => container.delete()?,
            Self::Gvisor(container) => container.delete()?,
        })
    }
}
