//! Limits, use and members of a container's cgroups.

use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use runtime_core::cgroup::Stats;

use super::lifecycle::{ExecState, Operation};
use super::{Container, Error};

impl Container {
    /// Sets limits; `resources` is JSON.
    pub async fn update(&self, resources: &[u8]) -> Result<(), Error> {
        let _alone = self.exclusive.write().await;
        self.allow(Operation::Update)?;
        let resources: LinuxResources = serde_json::from_slice(resources).map_err(|source| Error::Resources {
            id: self.id.clone(),
            source,
        })?;
        let runtime = Arc::clone(&self.runtime);
        let done = self.shim.blocking(move || runtime.update(&resources)).await?;
        done.map_err(Error::runtime("update", &self.id))
    }

    /// What it uses, or used: its cgroups stay until it is deleted.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let runtime = Arc::clone(&self.runtime);
        let done = self.shim.blocking(move || runtime.stats()).await?;
        done.map_err(Error::runtime("read the statistics of", &self.id))
    }

    /// Its processes, each with the exec id where it has one.
    pub async fn pids(&self) -> Result<Vec<(u32, Option<String>)>, Error> {
        let runtime = Arc::clone(&self.runtime);
        let pids = self.shim.blocking(move || runtime.pids()).await?;
        let pids = pids.map_err(Error::runtime("list the processes of", &self.id))?;
        let init = self.init.pid();
        let inner = self.inner();
        let exec = |pid| {
            inner
                .execs
                .values()
                .find(|exec| exec.process.pid() == pid && pid != init)
                .map(|exec| exec.id.clone())
        };
        let mut listed: Vec<_> = pids.into_iter().map(|pid| (pid as u32, exec(pid as u32))).collect();
        // In a sentry every process goes by the sentry's pid.
        let inside = inner
            .execs
            .values()
            .filter(|exec| exec.state() == ExecState::Running && exec.process.pid() == init);
        listed.extend(inside.map(|exec| (init, Some(exec.id.clone()))));
        Ok(listed)
    }
}
