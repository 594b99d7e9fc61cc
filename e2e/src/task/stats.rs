//! Metrics.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    t.add("metrics have the type of the host's cgroups", async |c| {
        let container = c.container().waiting().start().await?;
        let version = if crate::node::has_cgroup_v2() { "v2" } else { "v1" };
        same!(
            container.raw_metrics().await?.type_url,
            format!("io.containerd.cgroups.{version}.Metrics")
        );
        Ok(())
    });
    t.add("metrics tell memory use and its limit", async |c| {
        let memory = json!({"limit": 256 * MIB});
        let container = c.container().args(&["probe", "memory", "20"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        container.stdout.wait_for("ready").await?;
        let metrics = container.metrics().await?;
        let usage = metrics.memory.usage.get_or_default();
        anyhow::ensure!(usage.usage >= 20 * MIB && usage.usage < 256 * MIB, "{usage:?}");
        same!(usage.limit, 256 * MIB);
        // containerd 1.6 does not know memory.peak.
        if c.is_nucleus() || !crate::node::has_cgroup_v2() {
            anyhow::ensure!(usage.max >= usage.usage, "{usage:?}");
        }
        anyhow::ensure!(metrics.memory.rss >= 19 * MIB, "rss {}", metrics.memory.rss);
        Ok(())
    });
    t.add("metrics tell CPU time, in all and by CPU", async |c| {
        let container = c.container().args(&["probe", "spin"]).start().await?;
        c.eventually("CPU time is counted", async || {
            Ok(container.metrics().await?.cpu.usage.get_or_default().total > 50_000_000)
        })
        .await?;
        let metrics = container.metrics().await?;
        let usage = metrics.cpu.usage.get_or_default();
        if !crate::node::has_cgroup_v2() {
            anyhow::ensure!(!usage.per_cpu.is_empty(), "{usage:?}");
            same!(
                usage.per_cpu.iter().sum::<u64>().abs_diff(usage.total) < usage.total,
                true
            );
        }
        anyhow::ensure!(usage.user > 0, "{usage:?}");
        Ok(())
    });
    t.add("metrics tell throttling", async |c| {
        let cpu = json!({"quota": 10_000, "period": 100_000});
        let container = c.container().args(&["probe", "spin"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
            .start()
            .await?;
        c.eventually("it is throttled", async || {
            Ok(container
                .metrics()
                .await?
                .cpu
                .throttling
                .get_or_default()
                .throttled_periods
                > 0)
        })
        .await
    });
    t.add("metrics tell how many processes there are and may be", async |c| {
        let container = c.container().args(&["probe", "forks", "4"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 77}))
            .start()
            .await?;
        container.stdout.wait_for("ready").await?;
        let metrics = container.metrics().await?;
        same!((metrics.pids.current, metrics.pids.limit), (5, 77));
        Ok(())
    });
    t.add("metrics tell of block devices", async |c| {
        let container = c.container().waiting().start().await?;
        anyhow::ensure!(container.metrics().await?.blkio.is_some());
        Ok(())
    });
    t.add("metrics can be had of a created and of a paused task", async |c| {
        let container = c.container().waiting().create().await?;
        anyhow::ensure!(container.metrics().await?.memory.is_some());
        container.start().await?;
        container.pause().await?;
        anyhow::ensure!(container.metrics().await?.memory.is_some());
        container.resume().await
    });
    t.add("metrics can be had after the end, until the delete", async |c| {
        let memory = json!({"limit": 16 * MIB, "swap": 16 * MIB});
        let container = c.container().args(&["probe", "memory", "64"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        same!(container.wait().await?, 137);
        let metrics = container.metrics().await?;
        same!(metrics.memory.usage.get_or_default().limit, 16 * MIB);
        if c.is_nucleus() || !crate::node::has_cgroup_v2() {
            anyhow::ensure!(metrics.memory.usage.get_or_default().max > MIB);
        }
        container.delete().await?;
        refused(
            container
                .raw_metrics()
                .await
                .map_err(|_| containerd_client::tonic::Status::not_found("gone")),
        )?;
        Ok(())
    });
    t.add("metrics tell the kills for lack of memory", async |c| {
        let memory = json!({"limit": 16 * MIB, "swap": 16 * MIB});
        let container = c.container().args(&["probe", "memory", "64"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        same!(container.wait().await?, 137);
        let metrics = container.metrics().await?;
        anyhow::ensure!(
            metrics.memory_oom_control.oom_kill > 0,
            "{:?}",
            metrics.memory_oom_control
        );
        Ok(())
    });
    t.add("the pids of a task are those of its processes", async |c| {
        let container = c.container().args(&["probe", "forks", "2"]).start().await?;
        container.stdout.wait_for("ready").await?;
        let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
        same!(pids.len(), 3);
        anyhow::ensure!(pids.contains(&container.pid.get()));
        for pid in pids {
            anyhow::ensure!(
                crate::processes::text(pid, "cgroup").contains(&container.id),
                "{pid} is not in its cgroup"
            );
        }
        Ok(())
    });
}
