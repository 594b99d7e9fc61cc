//! The native runtime as a [backend](crate::backend).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use oci_spec::runtime as oci;

use super::{Container, ExitStatus, Launched, Process, Stdio};
use crate::backend::{self, Error};
use crate::cgroup::{self, Cgroup, OomWatch};
use crate::{hooks, plan};

impl From<Launched> for backend::Launched {
    fn from(launched: Launched) -> Self {
        Self {
            process: Arc::new(launched.process),
            console: launched.console,
            differences: launched.differences,
        }
    }
}

impl backend::Process for Process {
    fn pid(&self) -> i32 {
        self.pid()
    }

    fn end(&self) -> &OwnedFd {
        self.pidfd()
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

    fn exec(&self, process: &plan::Process, _given: &oci::Process, stdio: Stdio) -> Result<backend::Launched, Error> {
        Ok(self.exec(process, stdio)?.into())
    }

    fn signal(&self, init: &dyn backend::Process, signal: i32) -> Result<bool, Error> {
        init.signal(signal)
    }

    fn signal_all(&self, signal: i32) -> Result<(), Error> {
        Ok(self.cgroup().kill(signal)?)
    }

    fn pause(&self) -> Result<(), Error> {
        Ok(self.cgroup().freeze()?)
    }

    fn resume(&self) -> Result<(), Error> {
        Ok(self.cgroup().thaw()?)
    }

    fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        Ok(self.cgroup().update(resources)?)
    }

    fn stats(&self) -> Result<cgroup::Stats, Error> {
        Ok(self.cgroup().stats()?)
    }

    fn watch_oom(&self) -> Result<OomWatch, Error> {
        Ok(self.cgroup().watch_oom()?)
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup()
    }

    fn pids(&self) -> Result<Vec<i32>, Error> {
        Ok(self.cgroup().pids()?)
    }

    fn ends_with_init(&self) -> bool {
        self.has_own_pid_namespace()
    }

    fn helper(&self) -> Option<i32> {
        Some(self.holder_pid())
    }

    fn end_helper(&self) -> Result<(), Error> {
        Ok(self.end_holder()?)
    }

    fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        Ok(self.delete()?)
    }
}
