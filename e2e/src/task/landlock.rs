//! What the container's Landlock domain takes away, and what it must leave.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::policy::{annotated, handler};
use crate::container::Builder;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const DIFFERS: &str = "runc has no Landlock";

/// Lets an ordinary user of the container make a user namespace, and mount in it.
const MOUNT_IN_USER_NAMESPACE: &str = "unshare -Urm mount -t tmpfs none /mnt";

fn may_trace(spec: &mut Value) {
    for set in ["bounding", "permitted", "effective"] {
        spec::push(spec, &format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
    }
}

fn may_administer(spec: &mut Value) {
    for set in ["bounding", "permitted", "effective"] {
        spec::push(spec, &format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
    }
}

fn tier<'a>(container: Builder<'a>, tier: &str) -> Builder<'a> {
    annotated(container, &json!({"nucleus.dev/landlock.tier": tier}))
}

pub fn register(t: &mut Registry) {
    t.add("an exec sees, traces and signals init", async |c| {
        let container = c
            .container()
            .sh("trap 'exit 9' TERM; export SEEN=1; while :; do sleep 1; done");
        let container = container.spec(|spec| spec["process"]["env"] = json!([spec::PATH, "SECRET=canary"]));
        let container = container.start().await?;
        let script = "tr '\\0' '\\n' < /proc/1/environ; ls /proc/1/root/bin/probe; readlink /proc/1/exe; readlink /proc/1/cwd; \
                      ls /proc/1/fd | wc -l; head -c 0 /proc/1/mem && echo mem; head -n 1 /proc/1/maps | wc -l; \
                      ps -o pid,args | grep -c SEEN";
        let seen = container.sh(script).await?;
        let lines: Vec<&str> = seen.stdout.lines().collect();
        for wanted in ["SECRET=canary", "/proc/1/root/bin/probe", "/bin/busybox", "/", "mem"] {
            ensure!(lines.contains(&wanted), "{wanted} is not seen: {seen:?}");
        }
        container.sh("kill -TERM 1").await?;
        same!(container.wait().await?, 9);
        Ok(())
    });
    t.add("files are renamed and linked across directories, and programs run from anywhere", async |c| {
        let script = "mkdir -p /tmp/a /tmp/b /mnt/x && cd /tmp && cp /bin/probe a/one && mv a/one b/two && ln b/two a/three \
                      && mv a /mnt/x/ && /mnt/x/a/three exit 0 && echo from the image && cp /bin/probe /run/p \
                      && /run/p exit 0 && echo from a tmpfs && mv b/two /usr/data/four && /usr/data/four exit 0 && echo all";
        let output = c.run(&["sh", "-c", script]).await?;
        same!(output.ok()?, "from the image\nfrom a tmpfs\nall\n");
        Ok(())
    });
    t.add("a user namespace of the workload's own mounts nothing", async |c| {
        let unrestricted = c.container().sh(MOUNT_IN_USER_NAMESPACE);
        let outcome = tier(unrestricted, "baseline").output().await?;
        ensure!(outcome.code != 0, "it mounted: {outcome:?}");
        let container = c.container().waiting().start().await?;
        let outcome = container.sh(MOUNT_IN_USER_NAMESPACE).await?;
        ensure!(outcome.code != 0, "an exec mounted: {outcome:?}");
        // The attack is one: without the domain it mounts.
        let attacked = c
            .container()
            .sh(MOUNT_IN_USER_NAMESPACE)
            .options(handler("landlock.tier = 'none'\n"));
        same!(attacked.output().await?.code, 0, "mounting without a domain");
        Ok(())
    })
    .differs(DIFFERS);
    t.add("a container with CAP_SYS_ADMIN mounts", async |c| {
        let output = c
            .container()
            .sh("mount -t tmpfs none /mnt && echo mounted")
            .spec(may_administer);
        same!(output.output().await?.ok()?, "mounted\n");
        Ok(())
    });
    t.add("what joins a PID namespace looks at those who are there", async |c| {
        let target = c.container().waiting().start().await?;
        let path = format!("/proc/{}/ns/pid", target.pid.get());
        let debugger = c
            .container()
            .sh("ls /proc/1/root/bin/probe && readlink /proc/1/exe")
            .spec(|spec| {
                spec::with_namespace_path(spec, "pid", &path);
                may_trace(spec);
            });
        same!(debugger.output().await?.ok()?, "/proc/1/root/bin/probe\n/bin/probe\n");
        Ok(())
    });
    t.add(
        "the hardened tier executes nothing from where the workload can write",
        async |c| {
            let script = "for d in /tmp /run /dev/shm /vol; do \
                      cp /bin/probe $d/p && if $d/p exit 0; then echo $d ran; else echo $d did not; fi; \
                      done 2>/dev/null; /ro/p exit 0 && echo read-only ran";
            let volume = c.directory.join("volume");
            let scripts = c.directory.join("scripts");
            for directory in [&volume, &scripts] {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::copy(&c.tools.probe, scripts.join("p"))?;
            let container = tier(c.container().sh(script), "hardened").spec(|spec| {
                let source = volume.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/vol", "bind", &source, &["rbind", "rw"]));
                let source = scripts.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/ro", "bind", &source, &["rbind", "ro"]));
                spec["annotations"]["nucleus.dev/landlock.tier"] = json!("hardened");
            });
            let output = container.output().await?;
            same!(
                output.ok()?,
                "/tmp ran\n/run did not\n/dev/shm did not\n/vol did not\nread-only ran\n"
            );
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("what cannot be had is refused where it is demanded", async |c| {
        let container = tier(c.container().waiting().spec(may_administer), "hardened");
        refused(container.create().await)?
            .saying("landlock.tier = \"hardened\" (the pod)")?
            .saying("CAP_SYS_ADMIN")?;
        let container = c
            .container()
            .waiting()
            .options(handler("require.landlock_abi = 1000\n"));
        refused(container.create().await)?.saying("require.landlock_abi = 1000 (the handler's options)")?;
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);
}
