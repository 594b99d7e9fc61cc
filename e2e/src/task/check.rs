//! `nucleus check`: what it says of this node, and of one where nothing can run.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{node, same};

const DIFFERS: &str = "it is a command of nucleus'";

/// What the command says of a thing.
fn row<'a>(told: &'a Value, name: &str) -> Result<&'a Value> {
    let rows = told["rows"].as_array().context("no rows")?;
    let found = rows.iter().find(|row| row["name"] == name);
    found.with_context(|| format!("no row {name:?} in {told}"))
}

pub fn register(t: &mut Registry) {
    t.add(
        "the node that containers run on is usable, and told as it is",
        async |c| {
            let output = Command::new(&c.tools.cli).args(["check", "--json"]).output().await?;
            ensure!(output.status.success(), "{output:?}");
            let told: Value = serde_json::from_slice(&output.stdout)?;
            same!(told["usable"], true);
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
            same!(row(&told, "Linux")?["found"], release.trim());
            same!(row(&told, "architecture")?["found"], std::env::consts::ARCH);
            let version = row(&told, "version")?;
            same!(version["found"] == "v2", node::has_cgroup_v2(), "{version}");
            let state = |is: bool| if is { "ok" } else { "partly" };
            same!(version["state"], state(node::has_cgroup_v2()));
            let systemd = Path::new("/run/systemd/system").exists();
            same!(row(&told, "driver systemd")?["state"], state(systemd));
            let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
            let enabled = if apparmor.trim() == "Y" {
                "enabled"
            } else {
                "not enabled"
            };
            same!(row(&told, "AppArmor")?["found"], enabled);
            // What is not as it should be is told with what to do.
            for row in told["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|row| row["state"] != "ok")
            {
                ensure!(row["without"] != "" && row["todo"] != "", "{row}");
            }
            // The same rows for people.
            let output = Command::new(&c.tools.cli).arg("check").output().await?;
            ensure!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout)?;
            for row in told["rows"].as_array().into_iter().flatten() {
                let name = row["name"].as_str().unwrap_or_default();
                ensure!(text.lines().any(|line| line.contains(name)), "no {name} in {text}");
            }
            ensure!(text.ends_with("nucleus can run containers here\n"), "{text}");
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("a place without cgroups cannot be used, which is an error", async |c| {
        let container = c.container().args(&["/mnt/nucleus", "check"]).spec(|spec| {
            let command = c.tools.cli.display().to_string();
            push(
                spec,
                "/mounts",
                mount("/mnt/nucleus", "bind", &command, &["bind", "ro"]),
            );
        });
        let output = container.output().await?;
        same!(output.code, 1, "{output:?}");
        ensure!(
            output.stdout.contains("missing  version            none mounted"),
            "{output:?}"
        );
        ensure!(
            output.stdout.contains("to do:   mount cgroup2 at /sys/fs/cgroup"),
            "{output:?}"
        );
        ensure!(
            output.stdout.contains("nucleus cannot run containers here"),
            "{output:?}"
        );
        Ok(())
    })
    .differs(DIFFERS);
}
