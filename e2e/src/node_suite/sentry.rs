//! gVisor on such a node: cgroup v2, and scopes of systemd's around a sentry and its gofers.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::gvisor::pods::{member, sandbox};
use crate::harness::Registry;
use crate::task::policy::handler;
use crate::{processes, same};

/// Where the machine has it; see [`super::image`].
const RUNSC: &str = "/mnt/runsc";
const MIB: u64 = 1 << 20;

/// The processes in a cgroup, by their names.
fn inhabitants(cgroup: &Path) -> Result<Vec<String>> {
    let file = cgroup.join("cgroup.procs");
    let pids = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let pids = pids.lines().filter_map(|pid| pid.parse().ok());
    Ok(pids
        .filter_map(processes::read)
        .map(|process| process.command)
        .collect())
}

fn has(cgroup: &Path, program: &str) -> Result<bool> {
    Ok(inhabitants(cgroup)?.iter().any(|command| command.starts_with(program)))
}

pub fn register(t: &mut Registry) {
    t.add(
        "each container of a pod in a sentry has a cgroup, from its creation to its end",
        async |c| {
            let options = || handler(&format!("runtime = \"gvisor\"\n[gvisor]\npath = \"{RUNSC}\"\n"));
            let limit = |spec: &mut serde_json::Value| {
                spec["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB});
            };
            let pod = sandbox(c).options(options()).start().await?;
            let one = member(c, &pod.id).options(options()).spec(limit).create().await?;
            let (first, second) = (pod.cgroup(""), one.cgroup(""));
            ensure!(
                has(&first, "runsc-sandbox")? && has(&first, "runsc-gofer")?,
                "{:?}",
                inhabitants(&first)?
            );
            // Nothing of it is on the host yet, but its place.
            ensure!(!has(&second, "runsc")?, "{:?}", inhabitants(&second)?);
            one.start().await?;
            same!(inhabitants(&second)?.len(), 1);
            ensure!(has(&second, "runsc-gofer")?, "{:?}", inhabitants(&second)?);
            same!(one.sh("echo fine").await?.ok()?, "fine\n");
            let max = std::fs::read_to_string(first.join("memory.max"))?;
            let max: u64 = max
                .trim()
                .parse()
                .with_context(|| format!("memory.max of the sentry is {max}"))?;
            ensure!(max > 64 * MIB && max < 512 * MIB, "{max}");
            ensure!(one.metrics_v2().await?.memory.usage > 0);
            // One that is never started goes as well.
            let two = member(c, &pod.id).options(options()).create().await?;
            let third = two.cgroup("");
            ensure!(third.exists());
            for container in [&two, &one, &pod] {
                container.kill(9).await?;
                same!(container.wait().await?, 137);
                container.delete().await?;
            }
            for cgroup in [first, second, third] {
                c.eventually("its cgroup is gone", async || Ok(!cgroup.exists()))
                    .await?;
            }
            Ok(())
        },
    )
    .differs("runc has no sentry")
    .within(120);
}
