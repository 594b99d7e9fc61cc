//! What exec costs in a cluster: CPU time of the runtime, of containerd and of kubelet, for the class and for runc on
//! the same node.
//!
//! The runtime's share is what its shim, what this has reaped (runc's own processes, the commands) and what it still
//! has as children (the holder) have used: the kernel counts that per process. Rounds are interleaved, so that whatever
//! else the machine does hits both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Setting;
use super::behaviours::Kind;
use super::behaviours::runtime::{process, shim_of};
use super::cluster::Cluster;
use super::engine::Engine;
use super::workload::Space;

/// How long probes are watched, one a second.
const PROBED: Duration = Duration::from_secs(60);
/// Execs of a round, by one runtime and then by the other.
const ROUND: u32 = 10;
/// Hertz of the times in /proc, on every Linux that there is a kubelet for.
const TICKS: f64 = 100.0;

/// A pod and the processes whose time is looked at.
struct Subject<'a> {
    name: &'static str,
    space: Space<'a>,
    shim: String,
}

/// Clock ticks of a shim with what belongs to it, of containerd and of kubelet.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    runtime: u64,
    containerd: u64,
    kubelet: u64,
}

/// Measures `rounds` execs of each and prints a table.
pub async fn run(engine: &Engine, setting: &Setting, rounds: u32) -> Result<()> {
    engine.load(&setting.image).await?;
    let kind = Kind::Preinstalled;
    let mut cluster = Cluster::create(engine, setting, "preinstalled.yaml", |config| kind.change(config)).await?;
    kind.prepare(&mut cluster).await?;
    println!("CPU time in a cluster of Kubernetes 1.37.2, containerd 2.4.2, ms each\n");
    println!("{:<34}{:>10}{:>10}{:>8}", "", "runc", "nucleus", "ratio");
    let execs = execs(&cluster, rounds).await?;
    let count = f64::from(rounds.div_ceil(ROUND) * ROUND);
    row("kubectl exec: shim and below", execs.map(|ticks| ticks.runtime), count);
    row("kubectl exec: containerd", execs.map(|ticks| ticks.containerd), count);
    row("kubectl exec: kubelet", execs.map(|ticks| ticks.kubelet), count);
    let probes = probes(&cluster).await?;
    row(
        "exec probe: shim and below",
        probes.map(|ticks| ticks.runtime),
        PROBED.as_secs_f64(),
    );
    cluster.delete(false).await
}

fn row(what: &str, ticks: [u64; 2], count: f64) {
    #[allow(clippy::cast_precision_loss)] // fewer ticks than 2^52
    let each = ticks.map(|ticks| ticks as f64 * 1000.0 / TICKS / count);
    println!("{what:<34}{:>10.2}{:>10.2}{:>8.1}", each[0], each[1], each[0] / each[1]);
}

async fn subjects<'a>(cluster: &'a Cluster<'a>, more: serde_json::Value) -> Result<[Subject<'a>; 2]> {
    let mut subjects = Vec::new();
    for (name, class) in [("runc", None), ("nucleus", Some("nucleus"))] {
        let space = Space::new(cluster, class).await?;
        space
            .pod("measured", "exec sleep 100000", json!({"main": more}))
            .await?;
        let pod = space.until_ready("measured").await?;
        let node = cluster.nodes().swap_remove(0);
        let (pid, _) = process(&space, &pod).await?;
        let (shim, _) = shim_of(&space, &node, &pid).await?;
        subjects.push(Subject { name, space, shim });
    }
    let two = subjects.try_into().ok();
    two.context("not two subjects")
}

impl Subject<'_> {
    /// Fields 14 to 17 of /proc/<pid>/stat: user and system time, its own and of what it has reaped.
    async fn ticks(&self) -> Result<Ticks> {
        let script = format!(
            "sum() {{ for pid in $(cat); do sed 's/.*) //' /proc/$pid/stat 2>/dev/null; done | \
             awk -v reaped=$1 '{{ t += $12 + $13; if (reaped) t += $14 + $15 }} END {{ print t + 0 }}'; }}
             echo $(($(echo {0} | sum 1) + $(pgrep -P {0} | sum 0)))
             pidof -s containerd | sum 0
             pidof -s kubelet | sum 0",
            self.shim
        );
        let node = self.space.cluster.nodes().swap_remove(0);
        let said = self.space.cluster.on_node(&node, &["sh", "-c", &script]).await?;
        let numbers: Vec<u64> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        ensure!(numbers.len() == 3, "{}'s times are {said:?}", self.name);
        Ok(Ticks {
            runtime: numbers[0],
            containerd: numbers[1],
            kubelet: numbers[2],
        })
    }
}

impl Ticks {
    fn since(self, before: Self) -> Self {
        Self {
            runtime: self.runtime.saturating_sub(before.runtime),
            containerd: self.containerd.saturating_sub(before.containerd),
            kubelet: self.kubelet.saturating_sub(before.kubelet),
        }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            runtime: self.runtime + more.runtime,
            containerd: self.containerd + more.containerd,
            kubelet: self.kubelet + more.kubelet,
        }
    }
}

async fn execs(cluster: &Cluster<'_>, rounds: u32) -> Result<[Ticks; 2]> {
    let subjects = subjects(cluster, json!({})).await?;
    let mut sums = [Ticks::default(); 2];
    for _ in 0..rounds.div_ceil(ROUND) {
        for (subject, sum) in subjects.iter().zip(&mut sums) {
            let before = subject.ticks().await?;
            for _ in 0..ROUND {
                subject.space.exec("measured", &["true"]).await?;
            }
            *sum = sum.plus(subject.ticks().await?.since(before));
        }
    }
    remove(subjects).await?;
    Ok(sums)
}

/// Both at the same time: kubelet's and containerd's shares cannot be told apart then.
async fn probes(cluster: &Cluster<'_>) -> Result<[Ticks; 2]> {
    let probe = json!({"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10}});
    let subjects = subjects(cluster, probe).await?;
    let before = [subjects[0].ticks().await?, subjects[1].ticks().await?];
    tokio::time::sleep(PROBED).await;
    let after = [subjects[0].ticks().await?, subjects[1].ticks().await?];
    remove(subjects).await?;
    Ok([after[0].since(before[0]), after[1].since(before[1])])
}

async fn remove(subjects: [Subject<'_>; 2]) -> Result<()> {
    for subject in subjects {
        subject.space.remove().await?;
    }
    Ok(())
}
