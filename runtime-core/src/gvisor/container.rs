//! A container in a sentry: start, signals, pause, delete.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::de::IgnoredAny;

use super::create::place_error;
use super::empty_dirs::Kept;
use super::launch::Call;
use super::process::{Process, WAIT};
use super::sandbox::Sandbox;
use super::spec::{self, Role};
use super::{Error, command, failing, refusals};
use crate::cgroup::{Cgroup, OomWatch};
use crate::hooks;
use crate::native::lifecycle_hooks::{poststop, run_hooks, state_of};
use crate::native::{self, Member, Stdio};
use crate::plan;
use crate::record::Record;

pub(super) const DESTROY: &str = "containerManager.DestroySubcontainer";
const PAUSE: &str = "containerManager.Pause";
const RESUME: &str = "containerManager.Resume";

/// How long delete waits for processes to leave the cgroups.
pub(super) const CGROUP_DELETE_LIMIT: Duration = Duration::from_secs(5);

/// A process just made, and the master side of its terminal if it has one.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Launched {
    pub process: Arc<Process>,
    pub console: Option<OwnedFd>,
}

/// A created container.
#[derive(Debug)]
pub struct Container {
    pub(super) id: String,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) role: Role,
    pub(super) container: plan::Container,
    /// Its mounts of volumes that the sentry keeps, by their index.
    pub(super) kept: BTreeMap<usize, Kept>,
    pub(super) cgroup: Cgroup,
    /// Whether runsc knows of it since Create: of a pod's first container, and of one with a terminal, whose console it
    /// makes then. To any other a single runsc does both, at Start.
    pub(super) was_announced: bool,
    /// Signals to the container's first process, and to all of them.
    pub(super) init: Arc<Process>,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// A member's streams, until it is started.
    pub stdio: Option<Stdio>,
    pub started: bool,
    pub deleted: bool,
    /// How many execs there were: for the names of their files.
    pub execs: u64,
    /// What holds the place in a member's scope, until its gofer is in it.
    pub place: Option<Member>,
}

impl Container {
    /// Starts its program.
    ///
    /// # Errors
    /// Why the program could not be executed.
    pub fn start(&self) -> Result<(), Error> {
        let stdio = {
            let mut inner = self.inner();
            if inner.started {
                return Err(self.misplaced("start", "it was started before"));
            }
            inner.started = true;
            inner.stdio.take().unwrap_or_default()
        };
        let overlay = spec::overlay(&self.container, self.sandbox.config.overlay);
        let (files, stdio) = match &self.role {
            Role::Root => (None, Stdio::default()),
            Role::Member(_) => (Some(self.sandbox.files(&self.container, &self.kept, overlay)), stdio),
        };
        let verb = if self.was_announced {
            command::start(&self.id)
        } else {
            command::run(&self.id, &self.sandbox.directory.bundle(&self.id))
        };
        let call = Call {
            command: "start",
            arguments: self.sandbox.arguments(verb, overlay),
            executable: &self.sandbox.executable,
            runsc: &self.sandbox.runsc,
            files,
            cgroup: &self.cgroup,
            console: None,
            terminal: false,
        };
        let ran = call.run(stdio);
        self.end_place()?;
        match ran {
            Ok(()) => {}
            // A program that ends at once takes its sentry along before runsc has heard that it runs. Its status is the
            // sentry's.
            Err(Error::Runsc { text, .. }) if self.role == Role::Root && is_hung_up(&text) && self.ends_soon() => {}
            Err(error) => {
                // As natively: what could not be started has ended.
                self.init.end_unstarted(libc::SIGKILL)?;
                return Err(error);
            }
        }
        if self.role != Role::Root {
            let mut answer = self.sandbox.connect(WAIT)?;
            answer.ask(WAIT, &self.id, &[])?;
            self.init.follow(answer)?;
        }
        let pid = self.init.pid();
        run_hooks(
            self.container.hooks.poststart.iter(),
            &self.container,
            "running",
            pid,
            &self.container.bundle,
        )
        .map_err(hook_error)
        .inspect_err(|_| {
            // It may have ended by itself; the hook's error is the one to be told.
            let _ = self.init.signal(libc::SIGKILL);
        })
    }

    /// The pid of what holds the place in its scope.
    pub fn place(&self) -> Option<i32> {
        self.inner().place.as_ref().map(Member::pid)
    }

    /// Ends what holds the place in its scope, if there is one.
    ///
    /// # Errors
    /// What keeps it from being reaped.
    pub fn end_place(&self) -> Result<(), Error> {
        let place = self.inner().place.take();
        place.map_or(Ok(()), |place| place.end().map_err(place_error))
    }

    fn ends_soon(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.sandbox.has_ended() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The container's cgroups: the sentry's for a pod's first container, its gofer's for any other.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Sets limits of a living container. A member's are its pod's as well, together with those of the others.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if self.role != Role::Root {
            refusals::check_member_limits(Some(resources))?;
            self.sandbox.limit(&self.id, resources)?;
        }
        Ok(self.cgroup.update(resources)?)
    }

    /// Tells of kills for want of memory: what is killed then is the sentry.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        Ok(self.sandbox.cgroup().as_ref().unwrap_or(&self.cgroup).watch_oom()?)
    }

    /// Sends a signal to the first process; Ok(false) where it has ended.
    pub fn signal(&self, signal: i32) -> Result<bool, Error> {
        if self.inner().started {
            let sent = self.init.signal(signal);
            // A sentry that does not even answer to this one is ended as a whole; a member's pod is containerd's to
            // end.
            return match sent {
                Err(_) if signal == libc::SIGKILL && self.role == Role::Root => self.sandbox.kill(),
                sent => sent,
            };
        }
        match signal {
            libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGHUP => {
                // It will write nothing: whoever reads its streams finds their end.
                self.inner().stdio.take();
                self.init.end_unstarted(signal)
            }
            _ => Err(self.misplaced("take this signal", "it is not started")),
        }
    }

    /// Sends a signal to every process.
    pub fn signal_all(&self, signal: i32) -> Result<(), Error> {
        if !self.inner().started {
            return self.signal(signal).map(drop);
        }
        match self.init.signal_all(signal) {
            Err(_) if signal == libc::SIGKILL && self.role == Role::Root => self.sandbox.kill().map(drop),
            sent => sent.map(drop),
        }
    }

    /// Stops every process, until [`Container::resume`].
    pub fn pause(&self) -> Result<(), Error> {
        self.alone("pause")?;
        self.sandbox.call::<IgnoredAny>(PAUSE, ()).map(drop)
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), Error> {
        self.alone("resume")?;
        self.sandbox.call::<IgnoredAny>(RESUME, ()).map(drop)
    }

    fn alone(&self, operation: &'static str) -> Result<(), Error> {
        match self.role {
            Role::Root => Ok(()),
            Role::Member(_) => Err(self.misplaced(
                operation,
                "a sentry pauses all containers of its pod at once; pause the pod's first one",
            )),
        }
    }

    /// The host's pids that stand for it.
    pub fn pids(&self) -> Vec<i32> {
        if self.sandbox.has_ended() {
            return Vec::new();
        }
        self.sandbox.process_id().map(|id| id.pid).into_iter().collect()
    }

    /// Removes what is left after its first process has ended. Bounded; done again, it does no harm.
    pub fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        if self.inner().deleted {
            return Ok(Vec::new());
        }
        match &self.role {
            Role::Root => {
                self.sandbox.kill()?;
            }
            Role::Member(_) if self.sandbox.has_ended() => {}
            Role::Member(_) => match self.sandbox.call::<IgnoredAny>(DESTROY, &self.id) {
                Ok(_) | Err(Error::Sentry { .. }) => {}
                Err(error) if error.is_hung_up() || self.sandbox.has_ended() => {}
                Err(error) => return Err(error),
            },
        }
        self.sandbox.unlimit(&self.id);
        self.end_place()?;
        // Whatever there is of a gofer ends here.
        let removed = self.cgroup.delete(CGROUP_DELETE_LIMIT);
        let state = || state_of(&self.container, "stopped", 0);
        let warnings = poststop(&self.container.hooks.poststop, &self.container.bundle, state);
        removed?;
        match &self.role {
            Role::Root => self.sandbox.directory.remove()?,
            Role::Member(sandbox) => self.sandbox.directory.remove_container(sandbox, &self.id)?,
        }
        Record::remove(&self.container.bundle)?;
        self.inner().deleted = true;
        Ok(warnings)
    }

    pub(super) fn misplaced(&self, operation: &'static str, reason: &'static str) -> Error {
        Error::State {
            id: self.id.clone(),
            operation,
            reason,
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether runsc says that its connection to the sentry ended in the middle.
fn is_hung_up(text: &str) -> bool {
    [
        "EOF",
        "connection reset",
        "broken pipe",
        "no control socket",
        "connection refused",
    ]
    .iter()
    .any(|words| text.contains(words))
}

pub(super) fn hook_error(error: native::Error) -> Error {
    match error {
        native::Error::Hook(error) => Error::Hook(error),
        other => failing("running a hook")(std::io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ended_in_the_middle_is_told_from_a_program_that_is_missing() {
        assert!(is_hung_up(
            "starting container: starting root container: urpc method failed: EOF"
        ));
        assert!(!is_hung_up(
            "starting container: failed to find initial working directory \"/x\""
        ));
    }
}
