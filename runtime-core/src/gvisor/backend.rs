//! gVisor as a [backend](crate::backend).

use std::os::fd::OwnedFd;

use oci_spec::runtime as oci;

use super::container::Launched;
use super::{Container, Process};
use crate::backend::{self, Error, ExitStatus, Stdio};
use crate::cgroup::{self, Cgroup, OomWatch};
use crate::{hooks, plan};

impl From<Launched> for backend::Launched {
    fn from(launched: Launched) -> Self {
        Self {
            process: launched.process,
            console: launched.console,
            differences: Vec::new(),
        }
    }
}

impl backend::Process for Process {
    fn pid(&self) -> i32 {
        self.pid()
    }

    fn end(&self) -> &OwnedFd {
        self.end()
    }

    fn signal(&self, signal: i32) -> Result<bool, Error> {
        Ok(self.signal(signal)?)
    }

    fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.try_wait()?)
    }
}

impl backend::Container for Container {
    fn start(&self) -> Result<(), Error> {
        Ok(self.start()?)
    }

    fn exec(&self, process: &plan::Process, given: &oci::Process, stdio: Stdio) -> Result<backend::Launched, Error> {
        Ok(self.exec(process, given, stdio)?.into())
    }

    /// The sentry's processes hear of signals from their container.
    fn signal(&self, _init: &dyn backend::Process, signal: i32) -> Result<bool, Error> {
        Ok(self.signal(signal)?)
    }

    fn signal_all(&self, signal: i32) -> Result<(), Error> {
        Ok(self.signal_all(signal)?)
    }

    fn pause(&self) -> Result<(), Error> {
        Ok(self.pause()?)
    }

    fn resume(&self) -> Result<(), Error> {
        Ok(self.resume()?)
    }

    fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        Ok(self.update(resources)?)
    }

    fn stats(&self) -> Result<cgroup::Stats, Error> {
        Ok(self.stats()?)
    }

    fn watch_oom(&self) -> Result<OomWatch, Error> {
        Ok(self.watch_oom()?)
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup()
    }

    fn pids(&self) -> Result<Vec<i32>, Error> {
        Ok(self.pids())
    }

    fn ends_with_init(&self) -> bool {
        true
    }

    fn helper(&self) -> Option<i32> {
        self.place()
    }

    fn end_helper(&self) -> Result<(), Error> {
        Ok(self.end_place()?)
    }

    fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        Ok(self.delete()?)
    }
}
