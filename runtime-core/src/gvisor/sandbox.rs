//! A pod's sentry, as its containers share it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{Config, Network, Overlay};
use super::control::Control;
use super::empty_dirs::{self, EmptyDirs, Kept};
use super::launch::Files;
use super::limits::Limits;
use super::state::Directory;
use super::trust::{Runsc, Untrusted};
use super::{Error, command, failing, spec};
use crate::cgroup::{self, Cgroup};
use crate::native::Executable;
use crate::plan::{self, MOUNT_ATTR_RDONLY};
use crate::record::ProcessId;
use crate::sys::process;

/// One sentry.
#[derive(Debug)]
pub struct Sandbox {
    /// Its id: that of its root container.
    pub id: String,
    pub(super) config: Config,
    pub(super) runsc: Arc<Runsc>,
    pub(super) executable: Arc<Executable>,
    pub(super) directory: Directory,
    pub(super) network: Network,
    pub(super) empty_dirs: EmptyDirs,
    process: Mutex<Option<Sentry>>,
    /// What its containers may use; from when its cgroup is made.
    limits: Mutex<Option<Limits>>,
}

#[derive(Debug)]
struct Sentry {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Sandbox {
    pub(super) fn new(
        id: String,
        config: Config,
        runsc: Arc<Runsc>,
        executable: Arc<Executable>,
        directory: Directory,
        network: Network,
        empty_dirs: EmptyDirs,
    ) -> Self {
        Self {
            id,
            config,
            runsc,
            executable,
            directory,
            network,
            empty_dirs,
            process: Mutex::default(),
            limits: Mutex::default(),
        }
    }

    /// All arguments of a runsc for a container of this sandbox, which has this overlay.
    pub(super) fn arguments(&self, verb: Vec<String>, overlay: Overlay) -> Vec<String> {
        let logs = self.config.debug_log.as_ref().map(|above| self.directory.logs(above));
        let mut arguments = command::global(
            &self.config,
            self.directory.path(),
            self.network,
            overlay,
            logs.as_deref(),
        );
        arguments.extend(verb);
        arguments
    }

    /// What an earlier run of a container may have left at the top of its rootfs, and the next one would stumble over:
    /// the file of its overlay.
    fn leftover(&self, overlay: Overlay) -> Option<String> {
        (overlay == Overlay::RootSelf).then(|| empty_dirs::filestore(&self.id))
    }

    /// What is mounted for a container of this sandbox before its runsc runs.
    pub(super) fn files(&self, container: &plan::Container, kept: &BTreeMap<usize, Kept>, overlay: Overlay) -> Files {
        let mut container = container.clone();
        let mounts = container.mounts.iter_mut().enumerate();
        for (_, mount) in mounts.filter(|(index, _)| kept.contains_key(index)) {
            // Read-only is the container's view of it; its content is written by the sentry.
            mount.set &= !MOUNT_ATTR_RDONLY;
            mount.recursive_set &= !MOUNT_ATTR_RDONLY;
        }
        let names = (0..container.mounts.len()).map(|index| spec::source_name(index, kept));
        Files {
            names: names.collect(),
            container,
            mounts: self.directory.mounts(),
            leftover: self.leftover(overlay),
        }
    }

    pub(super) fn set_process(&self, id: ProcessId, pidfd: OwnedFd) {
        *self.process() = Some(Sentry { id, pidfd });
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
    }

    /// Takes the limits of a container that is not the first, or a change of them.
    pub(super) fn limit(&self, id: &str, resources: &LinuxResources) -> Result<(), cgroup::Error> {
        match self.limits.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(limits) => limits.update(id, resources),
            None => Ok(()),
        }
    }

    /// Forgets the limits of a container that goes.
    pub(super) fn unlimit(&self, id: &str) {
        if let Some(limits) = self.limits.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            limits.remove(id);
        }
    }

    /// The cgroup that the sentry is in.
    pub(super) fn cgroup(&self) -> Option<Cgroup> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.as_ref().map(|limits| limits.cgroup().clone())
    }

    /// The sentry's process.
    pub fn process_id(&self) -> Option<ProcessId> {
        self.process().as_ref().map(|sentry| sentry.id)
    }

    /// A pidfd of its own for whoever wants to know of the sentry's end.
    pub(super) fn pidfd(&self) -> io::Result<OwnedFd> {
        match self.process().as_ref() {
            Some(sentry) => sentry.pidfd.try_clone(),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Whether the sentry has ended; a zombie has.
    pub(super) fn has_ended(&self) -> bool {
        let process = self.process();
        let Some(sentry) = process.as_ref() else { return false };
        let mut fds = [PollFd::new(&sentry.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Ends the sentry, and with it every container of the pod.
    pub(super) fn kill(&self) -> Result<bool, Error> {
        let process = self.process();
        let Some(sentry) = process.as_ref() else {
            return Ok(false);
        };
        match process::send_signal(&sentry.pidfd, libc::SIGKILL) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(source) => Err(failing("killing the sentry")(source)),
        }
    }

    pub(super) fn connect(&self, method: &'static str) -> Result<Control, Error> {
        Control::connect(self.directory.path(), &self.id).map_err(|source| Error::Control { method, source })
    }

    /// Asks the sentry, on a connection of its own: nobody waits for anybody else's answer.
    pub(super) fn call<R: DeserializeOwned>(&self, method: &'static str, arg: impl Serialize) -> Result<R, Error> {
        self.connect(method)?.call(method, arg, &[])
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Sentry>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sandboxes of one shim, and the runsc that they run.
#[derive(Debug, Default)]
pub struct Sandboxes {
    running: Mutex<HashMap<String, Weak<Sandbox>>>,
    runsc: Mutex<Option<(Config, Arc<Runsc>)>>,
}

impl Sandboxes {
    /// The runsc of `config`, opened and checked once.
    pub(super) fn runsc(&self, config: &Config) -> Result<Arc<Runsc>, Untrusted> {
        let known = || self.runsc.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, runsc)) = known().as_ref()
            && of == config
        {
            return Ok(Arc::clone(runsc));
        }
        let runsc = Runsc::open(config)?;
        *known() = Some((config.clone(), Arc::clone(&runsc)));
        Ok(runsc)
    }

    pub(super) fn add(&self, sandbox: &Arc<Sandbox>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, sandbox| sandbox.strong_count() > 0);
        running.insert(sandbox.id.clone(), Arc::downgrade(sandbox));
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id)?.upgrade()
    }
}
