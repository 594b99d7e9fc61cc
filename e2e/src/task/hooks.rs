//! The six kinds of hooks.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{same, spec};

/// A script on the host, as a hook. `$OUT` is a file of the test that it may write to.
fn hook(c: &Ctx, name: &str, body: &str) -> Result<Value> {
    let path = c.directory.join(format!("hook-{name}"));
    let out = out(c, name);
    std::fs::write(&path, format!("#!/bin/sh\nOUT={out}\n{body}\n")).context("write a hook")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(json!({"path": path, "args": [name, "argument"], "env": ["HOOK=yes"]}))
}

fn out(c: &Ctx, name: &str) -> String {
    c.directory.join(format!("out-{name}")).display().to_string()
}

fn written(c: &Ctx, name: &str) -> Result<String> {
    let path = out(c, name);
    std::fs::read_to_string(&path).with_context(|| format!("the hook {name} wrote nothing"))
}

pub fn register(t: &mut Registry) {
    run(t);
    fail(t);
}

fn run(t: &mut Registry) {
    t.add("hooks before the start run at create, in order", async |c| {
        let kinds = ["prestart", "createRuntime"];
        let log = c.directory.join("order").display().to_string();
        let container = c.container().waiting().spec(|_| ());
        let hooks = kinds.map(|kind| Ok::<_, anyhow::Error>((kind, hook(c, kind, &format!("echo {kind} >> {log}"))?)));
        let hooks: Vec<(&str, Value)> = hooks.into_iter().collect::<Result<_>>()?;
        let container = container.spec(|spec| {
            for (kind, hook) in hooks {
                spec["hooks"][kind] = json!([hook]);
            }
        });
        let container = container.create().await?;
        same!(std::fs::read_to_string(&log)?, "prestart\ncreateRuntime\n");
        container.start().await
    });
    t.add("a hook reads the container's state from its stdin", async |c| {
        let one = hook(c, "createRuntime", "cat > $OUT")?;
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
            .create()
            .await?;
        let state: Value = serde_json::from_str(&written(c, "createRuntime")?)?;
        same!(state["id"], container.id.as_str());
        same!(state["pid"], container.pid.get());
        same!(
            state["bundle"],
            c.daemon.bundle(&c.namespace, &container.id).display().to_string()
        );
        anyhow::ensure!(state["ociVersion"].is_string(), "{state}");
        same!(state["status"], "creating");
        Ok(())
    });
    t.add(
        "a hook has the arguments and exactly the environment of the spec",
        async |c| {
            let one = hook(
                c,
                "createRuntime",
                "echo $0 $1 > $OUT; tr '\\0' '\\n' < /proc/self/environ >> $OUT",
            )?;
            let container = c.container().spec(|spec| spec["hooks"]["createRuntime"] = json!([one]));
            container.output().await?.ok()?;
            let text = written(c, "createRuntime")?;
            anyhow::ensure!(
                text.lines().next().is_some_and(|line| line.ends_with(" argument")),
                "{text}"
            );
            let environment: Vec<&str> = text.lines().skip(1).filter(|line| !line.starts_with("PWD=")).collect();
            same!(
                environment,
                ["HOOK=yes", &format!("OUT={}", out(c, "createRuntime"))][..1]
            );
            Ok(())
        },
    );
    t.add("hooks of one kind run in the order of the spec", async |c| {
        let log = c.directory.join("order").display().to_string();
        let hooks = ["a", "b", "c"].map(|name| hook(c, name, &format!("echo {name} >> {log}")));
        let hooks: Vec<Value> = hooks.into_iter().collect::<Result<_>>()?;
        c.container()
            .spec(|spec| spec["hooks"]["createRuntime"] = json!(hooks))
            .output()
            .await?
            .ok()?;
        same!(std::fs::read_to_string(&log)?, "a\nb\nc\n");
        Ok(())
    });
    t.add(
        "createRuntime runs in the host's namespaces, before the root is changed",
        async |c| {
            let one = hook(c, "createRuntime", "readlink /proc/self/ns/mnt > $OUT")?;
            c.container()
                .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                .output()
                .await?
                .ok()?;
            same!(
                written(c, "createRuntime")?.trim_end(),
                std::fs::read_link("/proc/self/ns/mnt")?.display().to_string()
            );
            Ok(())
        },
    );
    t.add(
        "createContainer runs in the container's namespaces with the host's files",
        async |c| {
            let one = hook(
                c,
                "createContainer",
                "readlink /proc/self/ns/mnt > $OUT; readlink /proc/self/ns/uts >> $OUT",
            )?;
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["hooks"]["createContainer"] = json!([one]))
                .start()
                .await?;
            let text = written(c, "createContainer")?;
            let wanted =
                ["mnt", "uts"].map(|name| std::fs::read_link(format!("/proc/{}/ns/{name}", container.pid.get())));
            for (line, wanted) in text.lines().zip(wanted) {
                same!(line, wanted?.display().to_string());
            }
            Ok(())
        },
    );
    t.add("startContainer runs inside the container at start", async |c| {
        let one = json!({"path": "/bin/busybox", "args": ["sh", "-c", "cat > /from-hook"]});
        let container = c
            .container()
            .args(&["cat", "/from-hook"])
            .spec(|spec| spec["hooks"]["startContainer"] = json!([one]));
        let output = container.output().await?;
        let state: Value = serde_json::from_str(output.ok()?)?;
        same!(state["status"], "created");
        Ok(())
    });
    t.add("poststart runs on the host after the start", async |c| {
        let one = hook(c, "poststart", "cat > $OUT.part; mv $OUT.part $OUT")?;
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["hooks"]["poststart"] = json!([one]))
            .start()
            .await?;
        let path = out(c, "poststart");
        c.eventually("the hook has run", async || Ok(std::path::Path::new(&path).exists()))
            .await?;
        let state: Value = serde_json::from_str(&written(c, "poststart")?)?;
        // The runtime specification says running; runc 1.1 has not looked again.
        same!(state["status"], c.by_runtime("created", "running"));
        same!(state["pid"], container.pid.get());
        Ok(())
    });
    t.add("poststop runs on the host at delete", async |c| {
        let one = hook(c, "poststop", "cat > $OUT")?;
        let container = c
            .container()
            .spec(|spec| spec["hooks"]["poststop"] = json!([one]))
            .start()
            .await?;
        container.wait().await?;
        container.delete().await?;
        let state: Value = serde_json::from_str(&written(c, "poststop")?)?;
        same!(
            (&state["status"], &state["id"]),
            (&json!("stopped"), &json!(container.id))
        );
        Ok(())
    });
    t.add("annotations reach the hooks", async |c| {
        let one = hook(c, "createRuntime", "cat > $OUT")?;
        let container = c.container().spec(|spec| {
            spec["hooks"]["createRuntime"] = json!([one]);
            spec["annotations"] = json!({"test.example/color": "blue"});
        });
        container.output().await?.ok()?;
        let state: Value = serde_json::from_str(&written(c, "createRuntime")?)?;
        same!(state["annotations"]["test.example/color"], "blue");
        Ok(())
    });
    t.add("a createContainer hook can mount into the container", async |c| {
        let source = c.directory.join("shared").display().to_string();
        std::fs::create_dir(&source)?;
        std::fs::write(format!("{source}/file"), "by the hook\n")?;
        let one = hook(
            c,
            "createContainer",
            &format!("mount --bind {source} \"$(pwd)/rootfs/mnt\" 2>$OUT || mount --bind {source} $ROOTFS/mnt"),
        )?;
        let container = c.container().args(&["cat", "/mnt/file"]);
        let rootfs = c
            .daemon
            .bundle(&c.namespace, &container.id)
            .join("rootfs")
            .display()
            .to_string();
        let container = container.spec(|spec| {
            let mut one = one;
            one["env"] = json!([format!("ROOTFS={rootfs}"), spec::PATH]);
            spec["hooks"]["createContainer"] = json!([one]);
            push(spec, "/mounts", mount("/mnt/unused", "tmpfs", "tmpfs", &[]));
        });
        same!(container.output().await?.ok()?, "by the hook\n");
        Ok(())
    });
}

fn fail(t: &mut Registry) {
    t.add("a hook that fails stops the create and is named", async |c| {
        let one = hook(c, "createRuntime", "echo it broke >&2; exit 3")?;
        let refusal = refused(
            c.container()
                .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                .create()
                .await,
        )?;
        if c.is_nucleus() {
            refusal.saying("hook-createRuntime")?.saying("it broke")?;
        }
        Ok(())
    });
    t.add("a hook that is missing stops the create and is named", async |c| {
        let one = json!({"path": "/no/such/hook"});
        refused(
            c.container()
                .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                .create()
                .await,
        )?
        .saying("/no/such/hook")?;
        Ok(())
    });
    t.add("a hook that hangs is ended at its timeout", async |c| {
        let mut one = hook(c, "createRuntime", "exec sleep 1000")?;
        one["timeout"] = json!(1);
        let begun = Instant::now();
        refused(
            c.container()
                .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                .create()
                .await,
        )?;
        anyhow::ensure!(begun.elapsed().as_secs() < 10, "took {:?}", begun.elapsed());
        Ok(())
    });
    t.add(
        "a hook that prints ten megabytes does not stop the container",
        async |c| {
            let one = hook(c, "createRuntime", "head -c 10000000 /dev/zero; exit 0")?;
            let container = c.container().args(&["echo", "fine"]);
            same!(
                container
                    .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                    .output()
                    .await?
                    .ok()?,
                "fine\n"
            );
            Ok(())
        },
    );
    t.add(
        "a hook that leaves its stdin unread does not stop the container",
        async |c| {
            let one = hook(c, "createRuntime", "exit 0")?;
            let container = c.container().args(&["echo", "fine"]);
            same!(
                container
                    .spec(|spec| spec["hooks"]["createRuntime"] = json!([one]))
                    .output()
                    .await?
                    .ok()?,
                "fine\n"
            );
            Ok(())
        },
    );
    t.add("a poststop hook that fails does not stop the delete", async |c| {
        let one = hook(c, "poststop", "exit 9")?;
        let container = c
            .container()
            .spec(|spec| spec["hooks"]["poststop"] = json!([one]))
            .start()
            .await?;
        container.wait().await?;
        container.delete().await?;
        Ok(())
    });
    t.add("poststop runs after a create that a hook has stopped", async |c| {
        let broken = hook(c, "createRuntime", "exit 1")?;
        let last = hook(c, "poststop", "cat > $OUT")?;
        let container = c.container().spec(|spec| {
            spec["hooks"]["createRuntime"] = json!([broken]);
            spec["hooks"]["poststop"] = json!([last]);
        });
        refused(container.create().await)?;
        anyhow::ensure!(!written(c, "poststop")?.is_empty());
        Ok(())
    });
}
