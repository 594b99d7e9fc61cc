//! Limits, and what happens at them.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same};

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    limits(t);
    enforcement(t);
    place(t);
}

fn limits(t: &mut Registry) {
    t.add("memory limits of the spec are the cgroup's", async |c| {
        let memory = json!({"limit": 64 * MIB, "reservation": 32 * MIB});
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        same!(
            container.cgroup_value("memory", "memory.limit_in_bytes")?,
            (64 * MIB).to_string()
        );
        same!(
            container.cgroup_value("memory", "memory.soft_limit_in_bytes")?,
            (32 * MIB).to_string()
        );
        Ok(())
    });
    t.add("CPU shares, quota and period of the spec are the cgroup's", async |c| {
        let cpu = json!({"shares": 512, "quota": 25_000, "period": 50_000});
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
            .start()
            .await?;
        container.has_shares(512)?;
        same!(container.cgroup_value("cpu", "cpu.cfs_quota_us")?, "25000");
        same!(container.cgroup_value("cpu", "cpu.cfs_period_us")?, "50000");
        Ok(())
    });
    t.add(
        "the set of CPUs and memory nodes of the spec is the cgroup's",
        async |c| {
            let cpu = json!({"cpus": "0", "mems": "0"});
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
                .start()
                .await?;
            same!(container.cgroup_value("cpuset", "cpuset.cpus")?, "0");
            let status = processes::text(container.pid.get(), "status");
            anyhow::ensure!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
            Ok(())
        },
    );
    t.add("the limit of processes of the spec is the cgroup's", async |c| {
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 17}))
            .start()
            .await?;
        same!(container.cgroup_value("pids", "pids.max")?, "17");
        Ok(())
    });
    t.add("a limit of processes of -1 means none", async |c| {
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": -1}))
            .start()
            .await?;
        same!(container.cgroup_value("pids", "pids.max")?, "max");
        Ok(())
    });
    t.add("without limits in the spec there are none", async |c| {
        let container = c.container().waiting().start().await?;
        // runc leaves what systemd sets for every unit, a part of what the host can have.
        if c.is_nucleus() || !crate::node::has_systemd_driver() {
            same!(container.cgroup_value("pids", "pids.max")?, "max");
        }
        same!(container.cgroup_value("cpu", "cpu.cfs_quota_us")?, "-1");
        let limit: u64 = container.cgroup_value("memory", "memory.limit_in_bytes")?.parse()?;
        anyhow::ensure!(limit > 1 << 60, "{limit}");
        Ok(())
    });
    t.add("a set of CPUs that the host lacks is refused", async |c| {
        let cpu = json!({"cpus": "4000"});
        refused(
            c.container()
                .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
                .create()
                .await,
        )?
        .saying("cpuset.cpus")?;
        Ok(())
    });
}

fn enforcement(t: &mut Registry) {
    t.add(
        "a process that outgrows the memory limit is killed, and an event says so",
        async |c| {
            let memory = json!({"limit": 16 * MIB, "swap": 16 * MIB});
            let container = c.container().args(&["probe", "memory", "64"]);
            let container = container
                .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
                .start()
                .await?;
            same!(container.wait().await?, 137);
            c.events().wait_for(&container.id, "oom", |_| true).await?;
            Ok(())
        },
    )
    .old_runc_differs("on a busy machine it tells of the exit and not of what came before");
    t.add(
        "an exec that outgrows the memory limit is killed, and init goes on",
        async |c| {
            let memory = json!({"limit": 32 * MIB, "swap": 32 * MIB});
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
                .start()
                .await?;
            let exec = container.exec(&["probe", "memory", "64"]).start().await?;
            same!(exec.wait().await?, 137);
            same!(container.sh("echo alive").await?.ok()?, "alive\n");
            Ok(())
        },
    );
    t.add("no more processes than the limit can be made", async |c| {
        let container = c.container().sh("for i in 1 2 3 4 5 6 7 8; do probe wait & done; wait");
        let container = container
            .spec(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 4}))
            .start()
            .await?;
        container.stderr.wait_for("can't fork").await?;
        Ok(())
    });
    t.add("a CPU quota holds a busy container back", async |c| {
        let cpu = json!({"quota": 10_000, "period": 100_000});
        let container = c.container().args(&["probe", "spin"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
            .start()
            .await?;
        c.eventually("it is throttled", async || {
            let stat = container.cgroup_value("cpu", "cpu.stat")?;
            Ok(stat
                .lines()
                .any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0")))
        })
        .await
    });
}

fn place(t: &mut Registry) {
    t.add(
        "a container is in the cgroup that the spec names, in every hierarchy",
        async |c| {
            let container = c.container().waiting().start().await?;
            let text = processes::text(container.pid.get(), "cgroup");
            let wanted = match crate::node::has_systemd_driver() {
                true => format!("/system.slice/{}-{}.scope", c.namespace, container.id),
                false => format!("/{}/{}", c.namespace, container.id),
            };
            let v2 = crate::node::has_cgroup_v2();
            for line in text.lines().filter(|line| v2 || !line.starts_with("0::")) {
                anyhow::ensure!(line.ends_with(&wanted), "{line}");
            }
            Ok(())
        },
    );
    t.add(
        "without a cgroup in the spec the container gets one by its name",
        async |c| {
            let container = c.container().waiting().spec(|spec| {
                if let Some(linux) = spec["linux"].as_object_mut() {
                    linux.remove("cgroupsPath");
                }
            });
            let id = container.id.clone();
            let container = container.start().await?;
            let text = processes::text(container.pid.get(), "cgroup");
            let hierarchy = if crate::node::has_cgroup_v2() {
                "0::"
            } else {
                ":memory:"
            };
            let end = match crate::node::has_systemd_driver() {
                true => format!("-{id}.scope"),
                false => format!("/{id}"),
            };
            anyhow::ensure!(
                text.lines()
                    .any(|line| line.contains(hierarchy) && line.ends_with(&end)),
                "{text}"
            );
            Ok(())
        },
    );
    t.add("a container's cgroups are gone after its delete", async |c| {
        let container = c.container().waiting().start().await?;
        let directories = ["memory", "cpu", "pids", "devices", "freezer", "systemd"].map(|name| container.cgroup(name));
        for directory in &directories {
            anyhow::ensure!(directory.is_dir(), "no {}", directory.display());
        }
        container.kill(9).await?;
        container.wait().await?;
        container.delete().await?;
        for directory in &directories {
            anyhow::ensure!(!directory.exists(), "{} is still there", directory.display());
        }
        Ok(())
    });
    t.add(
        "cgroups that a container made below its own are gone after its delete",
        async |c| {
            let container = c.container().waiting().start().await?;
            for name in ["memory", "pids"] {
                std::fs::create_dir_all(container.cgroup(name).join("a/b"))?;
            }
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            anyhow::ensure!(!container.cgroup("memory").exists());
            Ok(())
        },
    );
    t.add(
        "two containers in one parent cgroup do not disturb each other",
        async |c| {
            let first = c.container().waiting().start().await?;
            let second = c.container().start().await?;
            second.wait().await?;
            second.delete().await?;
            same!(first.sh("echo fine").await?.ok()?, "fine\n");
            anyhow::ensure!(first.cgroup("memory").is_dir());
            Ok(())
        },
    );
}
