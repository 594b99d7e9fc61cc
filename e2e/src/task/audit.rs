//! The audit trail, the mount audit, and `nucleus explain` of a container that runs.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::policy::{annotated, handler};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const DIFFERS: &str = "runc writes no audit trail";

fn events(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A hook that makes a read-only mount of the container's writable, in the container's mount namespace.
fn meddling_hook(c: &Ctx, rootfs: &Path) -> Result<Value> {
    let path = c.directory.join("meddle");
    let script = format!("#!/bin/sh\nexec mount -o remount,bind,rw {}/mnt\n", rootfs.display());
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(json!({"path": path, "args": ["meddle"], "env": [spec::PATH]}))
}

pub fn register(t: &mut Registry) {
    t.add(
        "what is created, exec'd and refused is in the trail, with who decided and why",
        async |c| {
            let trail = c.directory.join("audit.jsonl");
            let options = || handler(&format!("audit = '{}'\nno_new_privs = true\n", trail.display()));
            let container = c.container().waiting().options(options()).start().await?;
            let exec = container.exec(&["true"]).id("looks").process(|process| {
                process["user"] = json!({"uid": 1000, "gid": 1000});
                process["capabilities"] = json!({});
            });
            same!(exec.output().await?.code, 0);
            let loosened = annotated(
                c.container().options(options()),
                &json!({"nucleus.dev/no_new_privs": "false"}),
            );
            refused(loosened.create().await)?;
            let missing = c.container().options(options()).args(&["/no/such/program"]);
            refused(missing.create().await)?;
            let own = annotated(c.container().options(options()), &json!({"nucleus.dev/audit": "none"}));
            refused(own.create().await)?.saying("only the node's configuration")?;

            let events = events(&trail)?;
            let words: Vec<String> = events
                .iter()
                .map(|event| {
                    format!(
                        "{} {}",
                        event["event"].as_str().unwrap_or("-"),
                        event["decision"].as_str().unwrap_or("-")
                    )
                })
                .collect();
            let expected = [
                "create allowed",
                "exec allowed",
                "create refused",
                "create allowed",
                "create failed",
                "create refused",
            ];
            same!(words, expected);
            for event in &events {
                same!(event["schema"], 1);
                same!(event["namespace"], c.namespace.as_str());
                ensure!(
                    event["time"].as_str().is_some_and(|time| time.ends_with('Z')),
                    "{event}"
                );
            }
            same!(events[0]["container"], container.id.as_str());
            same!(
                events[0]["detail"]["policy"]["no_new_privs"],
                json!({"value": "true", "from": "handler"})
            );
            same!(
                (&events[1]["process"], &events[1]["detail"]["user"]),
                (&json!("looks"), &json!(1000))
            );
            same!(events[2]["control"], "no_new_privs");
            ensure!(
                events[2]["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("may only tighten")),
                "{}",
                events[2]
            );
            ensure!(
                events[4]["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("/no/such/program")),
                "{}",
                events[4]
            );
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add("what cannot be written down is not done", async |c| {
        let nowhere = c
            .container()
            .options(handler("audit = '/no/such/directory/audit.jsonl'\n"));
        refused(nowhere.create().await)?.saying("cannot be written down")?;
        let link = c.directory.join("link");
        std::os::unix::fs::symlink("/dev/null", &link)?;
        let linked = c
            .container()
            .options(handler(&format!("audit = '{}'\n", link.display())));
        refused(linked.create().await)?.saying("cannot be written down")?;
        let trail = c.directory.join("audit.jsonl");
        let container = c
            .container()
            .waiting()
            .options(handler(&format!("audit = '{}'\n", trail.display())));
        let container = container.start().await?;
        std::fs::remove_file(&trail)?;
        std::fs::create_dir(&trail)?;
        refused(container.exec(&["true"]).start().await)?.saying("cannot be written down")?;
        std::fs::remove_dir(&trail)?;
        same!(container.sh("exit 5").await?.code, 5, "after the trail is there again");
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);

    t.add(
        "mounts that are not as they were meant are reported, or refused",
        async |c| {
            let source = c.directory.join("volume");
            std::fs::create_dir(&source)?;
            let trail = c.directory.join("audit.jsonl");
            for (setting, stops) in [("report", false), ("refuse", true)] {
                let options = format!("mount_audit = '{setting}'\naudit = '{}'\n", trail.display());
                let container = c.container().waiting().options(handler(&options));
                let hook = meddling_hook(c, &c.daemon.bundle(&c.namespace, &container.id).join("rootfs"))?;
                let container = container.spec(|spec| {
                    let source = source.display().to_string();
                    spec::push(spec, "/mounts", spec::mount("/mnt", "bind", &source, &["rbind", "ro"]));
                    spec["hooks"]["createContainer"] = json!([hook]);
                });
                if stops {
                    refused(container.create().await)?.saying("mount audit: /mnt: it is not ro")?;
                } else {
                    container.start().await?;
                }
            }
            let events = events(&trail)?;
            let differs: Vec<&Value> = events.iter().filter(|event| event["decision"] == "differs").collect();
            same!(differs.len(), 1);
            same!(
                (&differs[0]["event"], &differs[0]["control"]),
                (&json!("mounts"), &json!("mount_audit"))
            );
            same!(differs[0]["reason"], "/mnt: it is not ro");
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "ordinary containers of every kind have the mounts that were meant",
        async |c| {
            let source = c.directory.join("volume");
            std::fs::create_dir(&source)?;
            let options = || handler("mount_audit = 'refuse'\n");
            let binds = |spec: &mut Value| {
                let source = source.display().to_string();
                spec::push(
                    spec,
                    "/mounts",
                    spec::mount("/mnt", "bind", &source, &["rbind", "ro", "nosuid"]),
                );
                spec::push(
                    spec,
                    "/mounts",
                    spec::mount(
                        "/sys/fs/cgroup",
                        "cgroup",
                        "cgroup",
                        &["ro", "nosuid", "nodev", "noexec"],
                    ),
                );
            };
            let read_only = |spec: &mut Value| spec["root"]["readonly"] = json!(true);
            let shared = |spec: &mut Value| spec["linux"]["rootfsPropagation"] = json!("rslave");
            let base = || c.container().args(&["true"]).options(options());
            same!(base().output().await?.code, 0);
            same!(base().spec(binds).output().await?.code, 0);
            same!(base().spec(read_only).output().await?.code, 0);
            same!(base().spec(shared).spec(binds).output().await?.code, 0);
            same!(base().terminal().output().await?.code, 0);
            same!(base().rootless_root(c).await?.spec(binds).output().await?.code, 0);
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "a running container is explained by its record and its process",
        async |c| {
            let container = annotated(c.container(), &json!({"nucleus.dev/no_new_privs": "true"})).waiting();
            let container = container.start().await?;
            let explain = async |arguments: &[&str]| -> Result<std::process::Output> {
                let mut command = Command::new(&c.tools.cli);
                command
                    .args(["explain", "--running", &container.id, "--state"])
                    .arg(c.daemon.state());
                Ok(command.args(arguments).output().await?)
            };
            let output = explain(&["--namespace", &c.namespace, "--json"]).await?;
            ensure!(output.status.success(), "{output:?}");
            let report: Value = serde_json::from_slice(&output.stdout)?;
            same!(
                report["settings"]["no_new_privs"],
                json!({"value": "true", "from": "pod"})
            );
            same!(report["settings"]["mode"]["from"], "default");
            same!(report["enforced"]["process"], container.pid.get().to_string());
            same!(report["enforced"]["no_new_privs"], "yes");
            let namespaces = report["enforced"]["namespaces unlike ours"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            ensure!(
                namespaces.contains("pid") && namespaces.contains("net") && !namespaces.contains("user"),
                "{namespaces}"
            );
            let text = explain(&[]).await?;
            let text = String::from_utf8(text.stdout)?;
            ensure!(text.contains(&container.id) && text.contains("no_new_privs"), "{text}");
            container.kill(9).await?;
            container.wait().await?;
            let output = explain(&["--json"]).await?;
            let report: Value = serde_json::from_slice(&output.stdout)?;
            same!(report["enforced"]["process"], "it has ended, or was never there");
            Ok(()) as Result<()>
        },
    )
    .differs("runc has no such command");
}
