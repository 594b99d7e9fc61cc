//! What only a node with cgroup v2, systemd and AppArmor can show.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::container::Container;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{processes, same};

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    limits(t);
    v2(t);
}

/// A file of a container's cgroup as it is.
pub(super) fn read(container: &Container<'_>, file: &str) -> Result<String> {
    let path = container.cgroup("").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

fn limits(t: &mut Registry) {
    t.add("an update of one limit leaves the others", async |c| {
        let container = c.container().waiting().start().await?;
        let all = json!({"cpu": {"quota": 30_000, "period": 60_000}, "memory": {"limit": 64 * MIB}});
        container.update(&all).await?;
        container
            .update(&json!({"unified": {"memory.high": "8388608"}}))
            .await?;
        same!(read(&container, "memory.high")?, "8388608");
        same!(read(&container, "memory.max")?, (64 * MIB).to_string());
        same!(read(&container, "cpu.max")?, "30000 60000");
        Ok(())
    });
}

fn v2(t: &mut Registry) {
    t.add(
        "a container that is one group for the OOM killer ends as a whole",
        async |c| {
            let container = c.container().waiting().spec(|spec| {
                spec["linux"]["resources"]["memory"] = json!({"limit": 32 * MIB, "swap": 32 * MIB});
                spec["linux"]["resources"]["unified"] = json!({"memory.oom.group": "1"});
            });
            let container = container.start().await?;
            let exec = container.exec(&["probe", "memory", "64"]).start().await?;
            same!(exec.wait().await?, 137);
            same!(container.wait().await?, 137);
            Ok(())
        },
    );
    t.add("a container has every controller of the host", async |c| {
        let container = c.container().waiting().start().await?;
        let host = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
        let own = read(&container, "cgroup.controllers")?;
        for name in host.split_whitespace() {
            ensure!(own.split_whitespace().any(|own| own == name), "no {name} among {own}");
        }
        Ok(())
    })
    .differs("runc on systemd's driver leaves out what systemd does not delegate");
    t.add(
        "a cgroup mount shows the container's own cgroup, read-only",
        async |c| {
            let script = "cat /sys/fs/cgroup/memory.max; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x";
            let container = c.container().sh(script).spec(|spec| {
                spec["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB});
                push(spec, "/linux/namespaces", json!({"type": "cgroup"}));
                let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
                push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
            });
            let output = container.output().await?;
            same!(output.stdout, format!("{}\n0::/\n", 64 * MIB));
            ensure!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
            Ok(())
        },
    );
    t.add(
        "a container with user and cgroup namespaces may make cgroups below its own",
        async |c| {
            let script = "mkdir /sys/fs/cgroup/below && echo $$ > /sys/fs/cgroup/below/cgroup.procs \
            && cat /proc/self/cgroup; echo 1 > /sys/fs/cgroup/pids.max";
            let container = c.container().sh(script).spec(|spec| {
                spec["linux"]["resources"]["pids"] = json!({"limit": 50});
                push(spec, "/linux/namespaces", json!({"type": "cgroup"}));
                let options = ["nosuid", "noexec", "nodev", "relatime", "rw"];
                push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
            });
            let output = container.rootless_root(c).await?.output().await?;
            same!(output.stdout, "0::/below\n", "{output:?}");
            ensure!(
                output.stderr.contains("ermission denied"),
                "its own limit is not its own: {output:?}"
            );
            Ok(())
        },
    )
    .differs("runc 1.1 gives a cgroup away on systemd's driver alone");
    t.add(
        "an exec of a container with a user namespace is in its cgroup",
        async |c| {
            let container = c.container().waiting().rootless_root(c).await?.start().await?;
            let exec = container.exec(&["probe", "wait"]).start().await?;
            let own = processes::text(container.pid.get(), "cgroup");
            same!(processes::text(exec.pid.get(), "cgroup"), own);
            ensure!(own.contains(&container.id), "{own}");
            Ok(())
        },
    );
    t.add("metrics tell pressure, block devices and huge pages", async |c| {
        let container = c.container().waiting().start().await?;
        let metrics = container.metrics_v2().await?;
        if std::path::Path::new("/proc/pressure").exists() {
            let told = [&metrics.cpu.psi, &metrics.memory.psi, &metrics.io.psi];
            ensure!(told.iter().all(|psi| psi.is_some()), "{metrics:?}");
        }
        ensure!(metrics.memory_events.is_some() && metrics.io.is_some(), "{metrics:?}");
        let host = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
        if host.split_whitespace().any(|name| name == "hugetlb") {
            ensure!(metrics.hugetlb.iter().any(|size| size.pagesize == "2MB"), "{metrics:?}");
        }
        Ok(())
    })
    .differs("the runc shim of containerd 1.6 does not know pressure");
}
