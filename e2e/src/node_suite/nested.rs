//! Containers that make cgroups of their own, below the one that is theirs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{processes, same};

/// A cgroup namespace, and cgroups that can be written to.
fn writable(spec: &mut Value) {
    push(spec, "/linux/namespaces", json!({"type": "cgroup"}));
    let options = ["nosuid", "noexec", "nodev", "relatime", "rw"];
    push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
}

/// Hands a controller down, for which it has to leave its own cgroup.
const HAND_DOWN: &str = "\
set -e
mkdir /sys/fs/cgroup/below
echo $$ > /sys/fs/cgroup/below/cgroup.procs
echo +pids > /sys/fs/cgroup/cgroup.subtree_control
echo ready
exec probe wait";

/// A container's own cgroup takes no processes any more then, and an exec has to go somewhere.
async fn exec_comes_in(container: Container<'_>) -> Result<()> {
    container.stdout.wait_for("ready").await?;
    let output = container.sh("cat /proc/self/cgroup").await?;
    same!(output.ok()?, "0::/below\n", "{output:?}");
    let exec = container.exec(&["probe", "wait"]).start().await?;
    let own = processes::text(exec.pid.get(), "cgroup");
    ensure!(
        own.trim_end().ends_with("/below") && own.contains(&container.id),
        "{own}"
    );
    exec.kill(9).await?;
    exec.wait().await?;
    let directory = container.cgroup("");
    container.kill(9).await?;
    container.wait().await?;
    container.delete().await?;
    ensure!(!directory.exists(), "{} is still there", directory.display());
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add(
        "an exec comes into a container that hands controllers down",
        async |c| exec_comes_in(c.container().sh(HAND_DOWN).spec(writable).start().await?).await,
    );
    t.add(
        "an exec comes into one with a user namespace that hands controllers down",
        async |c| {
            let container = c.container().sh(HAND_DOWN).spec(writable);
            exec_comes_in(container.rootless_root(c).await?.start().await?).await
        },
    )
    .differs("runc 1.1 gives a cgroup away on systemd's driver alone");
    t.add(
        "a systemd in a container runs units in cgroups of their own",
        async |c| {
            let container = with_systemd(c)?.start().await?;
            let systemctl = async |args: &[&str]| {
                let args = [&["/usr/bin/systemctl"], args].concat();
                container.exec(&args).output().await
            };
            let running = c
                .within(20, "the unit runs", async || {
                    Ok(systemctl(&["is-active", "nested.service"]).await?.stdout == "active\n")
                })
                .await;
            running.with_context(|| format!("systemd says: {}", container.stdout.text()))?;
            // What it says is so, seen from here.
            let unit = container.cgroup("").join("system.slice/nested.service");
            let read = |name: &str| std::fs::read_to_string(unit.join(name)).with_context(|| format!("read {name}"));
            let pid: u32 = read("cgroup.procs")?.trim().parse().context("one process")?;
            ensure!(
                container.pids().await?.iter().any(|process| process.pid == pid),
                "{pid} is not the container's"
            );
            systemctl(&["stop", "nested.service"]).await?.ok()?;
            ensure!(!processes::is_alive(pid), "{pid} outlives its unit");
            // It is told to end as an administrator would: SIGRTMIN+3 halts a systemd in a container.
            container.kill(37).await?;
            tokio::time::timeout(crate::node::patience(20), container.wait())
                .await
                .context("systemd does not halt")??;
            let directory = container.cgroup("");
            container.delete().await?;
            ensure!(!directory.exists(), "{} is still there", directory.display());
            Ok(())
        },
    )
    .within(40);
}

/// The node's own systemd as the first process of a container.
fn with_systemd(c: &Ctx) -> Result<Builder<'_>> {
    const UNIT: &str = "\
[Unit]
DefaultDependencies=no

[Service]
ExecStart=/bin/probe wait
StandardOutput=null
StandardError=null
";
    let units = c.directory.join("units");
    std::fs::create_dir(&units).context("make the directory of the units")?;
    std::fs::write(units.join("nested.service"), UNIT).context("write the unit")?;
    let container = c.container().args(&["/lib/systemd/systemd", "--unit=nested.service"]);
    // Its words go to the console.
    Ok(container.terminal().spec(writable).spec(|spec| {
        // What a runtime says of itself to a systemd (systemd.io/CONTAINER_INTERFACE).
        push(spec, "/process/env", json!("container=oci"));
        for (from, to) in [("/usr", "/usr"), ("/usr/lib", "/lib"), ("/usr/lib64", "/lib64")] {
            push(spec, "/mounts", mount(to, "bind", from, &["rbind", "ro"]));
        }
        // What Debian's mounts there as well; it ends where that is not there and mount(2) is not for it.
        push(
            spec,
            "/mounts",
            mount("/run/lock", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]),
        );
        let units = units.display().to_string();
        push(
            spec,
            "/mounts",
            mount("/etc/systemd/system", "bind", &units, &["bind", "ro"]),
        );
    }))
}
