//! What only a node with cgroup v2, systemd and AppArmor can show.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::container::Container;
use crate::expect::refused;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{processes, same};

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    limits(t);
    v2(t);
    apparmor(t);
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

const PROFILE: &str = "\
profile nucleus-test flags=(attach_disconnected) {
  file,
  capability,
  network,
  signal,
  unix,
  mount,
  umount,
  deny /usr/data/seed r,
}
";

/// Loads the profile, as an administrator would.
async fn load_profile(directory: &std::path::Path) -> Result<()> {
    let file = directory.join("profile");
    std::fs::write(&file, PROFILE)?;
    let output = Command::new("apparmor_parser").arg("-Kr").arg(&file).output().await;
    let output = output.context("run apparmor_parser")?;
    ensure!(
        output.status.success(),
        "apparmor_parser: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn apparmor(t: &mut Registry) {
    const LOOK: &str = "cat /proc/self/attr/apparmor/current; cat /usr/data/seed";
    t.add("init and execs run under the AppArmor profile of the spec", async |c| {
        load_profile(&c.directory).await?;
        // The canary can be read where the profile is not.
        let free = c.container().sh(LOOK).output().await?;
        same!(free.ok()?, "unconfined\nfrom the image\n");
        let container = c.container().sh(LOOK);
        let held = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .output()
            .await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        ensure!(held.stderr.contains("ermission denied"), "{held:?}");
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .start()
            .await?;
        // As Kubernetes' clients do, an exec names the profile of its container.
        let exec = container.exec(&["sh", "-c", LOOK]);
        let exec = exec.process(|process| process["apparmorProfile"] = json!("nucleus-test"));
        let held = exec.output().await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        ensure!(held.stderr.contains("ermission denied"), "{held:?}");
        Ok(())
    });
    t.add("an exec that names no AppArmor profile runs under init's", async |c| {
        load_profile(&c.directory).await?;
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .start()
            .await?;
        let held = container.sh(LOOK).await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        Ok(())
    })
    .differs("runc 1.1 runs such an exec unconfined");
    t.add("a profile that is not loaded starts nothing", async |c| {
        let container = c
            .container()
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-missing"));
        let refusal = refused(container.start().await)?;
        if c.is_nucleus() {
            refusal.saying("nucleus-missing")?;
        }
        Ok(())
    });
    t.add("a hook is not under the container's profile", async |c| {
        load_profile(&c.directory).await?;
        let container = c.container().sh("cat /tmp/hook").spec(|spec| {
            spec["process"]["apparmorProfile"] = json!("nucleus-test");
            let script = "cat /proc/self/attr/apparmor/current > /tmp/hook";
            spec["hooks"] = json!({"startContainer": [{"path": "/bin/busybox", "args": ["sh", "-c", script]}]});
        });
        same!(container.output().await?.ok()?, "unconfined\n");
        Ok(())
    })
    .differs("runc labels init before its startContainer hooks");
}
