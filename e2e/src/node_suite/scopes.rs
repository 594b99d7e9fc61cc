//! Containers as scopes of systemd's, and what systemd does meanwhile.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::behaviours::read;
use crate::expect::refused;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{node, processes, same};

const MIB: u64 = 1 << 20;

/// Runs systemctl until it succeeds: while systemd reloads, which other tests have it do, it may not answer.
async fn systemctl(args: &[&str]) -> Result<String> {
    let begun = std::time::Instant::now();
    loop {
        let output = Command::new("systemctl").args(args).output().await;
        let output = output.context("run systemctl")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(begun.elapsed() < node::patience(10), "systemctl {args:?}: {text}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// What systemd says of a scope.
async fn show(unit: &str, property: &str) -> Result<String> {
    systemctl(&["show", "--value", "--property", property, unit]).await
}

fn limited(spec: &mut Value) {
    spec["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB});
    spec["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 30_000, "period": 60_000});
    spec["linux"]["resources"]["pids"] = json!({"limit": 55});
}

/// Has systemd execute itself anew, meanwhile.
fn execute_anew() -> Result<Child> {
    let mut systemctl = Command::new("systemctl");
    let anew = systemctl.arg("daemon-reexec").kill_on_drop(true).spawn();
    anew.context("run systemctl")
}

pub fn register(t: &mut Registry) {
    scopes(t);
    restarts(t);
}

fn scopes(t: &mut Registry) {
    t.add(
        "a container is a scope of systemd's while it lives, and no longer",
        async |c| {
            let container = c.container().waiting().start().await?;
            let unit = format!("{}-{}.scope", c.namespace, container.id);
            same!(show(&unit, "ActiveState").await?, "active");
            same!(show(&unit, "Slice").await?, "system.slice");
            same!(show(&unit, "Delegate").await?, "yes");
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            c.eventually("systemd has forgotten it", async || {
                Ok(show(&unit, "LoadState").await? == "not-found")
            })
            .await
        },
    );
    t.add("systemd knows the limits, those of an update too", async |c| {
        let container = c.container().waiting().spec(limited).start().await?;
        let unit = format!("{}-{}.scope", c.namespace, container.id);
        same!(show(&unit, "MemoryMax").await?, (64 * MIB).to_string());
        same!(show(&unit, "TasksMax").await?, "55");
        same!(show(&unit, "CPUQuotaPerSecUSec").await?, "500ms");
        container.update(&json!({"memory": {"limit": 32 * MIB}})).await?;
        same!(show(&unit, "MemoryMax").await?, (32 * MIB).to_string());
        Ok(())
    });
    t.add("limits and device rules outlive a daemon-reload", async |c| {
        let container = c.container().waiting().spec(limited).start().await?;
        container.update(&json!({"memory": {"limit": 32 * MIB}})).await?;
        systemctl(&["daemon-reload"]).await?;
        same!(read(&container, "memory.max")?, (32 * MIB).to_string());
        same!(read(&container, "pids.max")?, "55");
        same!(read(&container, "cpu.max")?, "30000 60000");
        container.has_shares(512)?;
        let output = container.sh("mknod /tmp/fuse c 10 229 && : < /tmp/fuse").await?;
        ensure!(
            output.code != 0 && output.stderr.contains("not permitted"),
            "{output:?}"
        );
        Ok(())
    });
    t.add("a scope that somebody else has is not taken over", async |c| {
        let first = c.container().waiting().start().await?;
        let path = node::cgroups_path(&c.namespace, &first.id);
        let second = c.container().spec(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        refused(second.create().await)?;
        same!(first.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    })
    .differs("runc 1.1 goes on in the cgroup of a scope that is there");
    t.add("a property that systemd does not take is named", async |c| {
        let container = c
            .container()
            .spec(|spec| spec["linux"]["cgroupsPath"] = json!("no--slice.slice:x:y"));
        refused(container.create().await)?.saying("no--slice.slice")?;
        Ok(())
    })
    .differs("runc says it in other words");
}

fn restarts(t: &mut Registry) {
    t.add(
        "a kill for want of memory is told although systemd took the cgroup away",
        async |c| {
            let script = "until [ -e /mnt/go ]; do sleep 0.1; done; exec probe memory 64";
            let container = c.container().sh(script).spec(|spec| {
                spec["linux"]["resources"]["memory"] = json!({"limit": 16 * MIB, "swap": 16 * MIB});
                let directory = c.directory.display().to_string();
                push(spec, "/mounts", mount("/mnt", "bind", &directory, &["bind", "ro"]));
            });
            let container = container.start().await?;
            let shim = processes::shim_of(container.pid.get()).context("no shim")?;
            let signal = |signal: &'static str| Command::new("kill").args([signal, &shim.to_string()]).status();
            // What the cgroup counted is gone before the shim can look.
            ensure!(signal("-STOP").await?.success());
            std::fs::write(c.directory.join("go"), "").context("let it go")?;
            let gone = c
                .within(20, "systemd has taken the cgroup away", async || {
                    Ok(!container.cgroup("").exists())
                })
                .await;
            ensure!(signal("-CONT").await?.success());
            gone?;
            same!(container.wait().await?, 137);
            c.events().wait_for(&container.id, "oom", |_| true).await?;
            Ok(())
        },
    )
    .differs("runc's shim reads what is gone");
    t.add("a scope that has failed leaves its name to a container", async |c| {
        let id = c.new_id();
        let unit = format!("{}-{id}.scope", c.namespace);
        // It outlives its time, which is a failure; systemd keeps it then.
        let mut scope = Command::new("systemd-run");
        scope.args([
            "--scope",
            "--quiet",
            "--unit",
            &unit,
            "--property",
            "RuntimeMaxSec=1",
            "sleep",
            "600",
        ]);
        let mut scope = scope.kill_on_drop(true).spawn().context("run systemd-run")?;
        c.within(30, "the scope has failed", async || {
            Ok(show(&unit, "ActiveState").await? == "failed")
        })
        .await?;
        scope.wait().await.context("wait for systemd-run")?;
        let mut container = c.container().waiting();
        container.set_id(&id);
        let container = container.start().await?;
        same!(show(&unit, "ActiveState").await?, "active");
        same!(show(&unit, "Result").await?, "success");
        same!(container.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    })
    .within(60)
    .differs("runc 1.1 goes on without a scope then");
    t.add(
        "containers are made, changed and deleted while systemd executes itself anew",
        async |c| {
            for _ in 0..2 {
                let mut anew = execute_anew()?;
                let container = c.container().waiting().spec(limited).start().await?;
                container.update(&json!({"memory": {"limit": 32 * MIB}})).await?;
                let unit = format!("{}-{}.scope", c.namespace, container.id);
                // Its connection breaks with the old systemd: how it ends says nothing.
                anew.wait().await.context("wait for systemctl")?;
                same!(show(&unit, "ActiveState").await?, "active");
                same!(show(&unit, "MemoryMax").await?, (32 * MIB).to_string());
                same!(read(&container, "memory.max")?, (32 * MIB).to_string());
                let mut anew = execute_anew()?;
                container.kill(9).await?;
                container.wait().await?;
                container.delete().await?;
                anew.wait().await.context("wait for systemctl")?;
                c.within(60, "systemd has forgotten it", async || {
                    Ok(show(&unit, "LoadState").await? == "not-found")
                })
                .await?;
            }
            Ok(())
        },
    )
    .within(120)
    .differs("runc gives up when its connection breaks");
}
