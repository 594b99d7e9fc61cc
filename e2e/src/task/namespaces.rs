//! Namespaces: made, shared with the host, joined by path, with ids mapped.

use std::fs::read_link;

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

pub fn register(t: &mut Registry) {
    made(t);
    shared_and_joined(t);
    users(t);
}

fn made(t: &mut Registry) {
    t.add(
        "every namespace of the spec is new and the others are the host's",
        async |c| {
            let container = c.container().waiting().start().await?;
            let pid = container.pid.get();
            for name in ["ipc", "mnt", "net", "pid", "uts"] {
                anyhow::ensure!(
                    read_link(format!("/proc/{pid}/ns/{name}"))? != read_link(format!("/proc/self/ns/{name}"))?,
                    "{name} is the host's"
                );
            }
            for name in ["cgroup", "user"] {
                same!(
                    read_link(format!("/proc/{pid}/ns/{name}"))?,
                    read_link(format!("/proc/self/ns/{name}"))?,
                    "{name}"
                );
            }
            Ok(())
        },
    );
    t.add("init is process 1 of its PID namespace", async |c| {
        let seen = c.probe(|_| ()).await?;
        same!((&seen["pid"], &seen["ppid"]), (&json!(1), &json!(0)));
        Ok(())
    });
    t.add(
        "a new network namespace has a loopback interface that is up, and no other",
        async |c| {
            let output = c.run(&["ip", "-o", "link"]).await?;
            let listing = output.ok()?;
            same!(
                listing.lines().filter(|line| line.contains("link/ether")).count(),
                0,
                "{listing}"
            );
            anyhow::ensure!(listing.contains("lo:") && listing.contains("LOOPBACK,UP"), "{listing}");
            Ok(())
        },
    );
    t.add("a hostname is the container's alone", async |c| {
        let before = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        let seen = c.probe(|spec| spec["hostname"] = json!("inside")).await?;
        same!(seen["hostname"], "inside");
        same!(std::fs::read_to_string("/proc/sys/kernel/hostname")?, before);
        Ok(())
    });
    t.add("a domain name is the container's alone", async |c| {
        let seen = c.probe(|spec| spec["domainname"] = json!("inside.test")).await?;
        same!(seen["domainname"], "inside.test");
        Ok(())
    })
    .differs("runc 1.1 does not know `domainname` yet");
    t.add(
        "a new cgroup namespace hides the path above the container's cgroup",
        async |c| {
            let seen = c
                .probe(|spec| spec::push(spec, "/linux/namespaces", json!({"type": "cgroup"})))
                .await?;
            let lines = seen["cgroup"].as_array().cloned().unwrap_or_default();
            let hidden = lines
                .iter()
                .filter_map(|line| line.as_str())
                .all(|line| !line.contains(&c.namespace));
            anyhow::ensure!(!lines.is_empty() && hidden, "{lines:?}");
            Ok(())
        },
    );
    t.add("a new time namespace has the clock offsets of the spec", async |c| {
        let output = c.container().args(&["cat", "/proc/uptime"]).spec(|spec| {
            spec::push(spec, "/linux/namespaces", json!({"type": "time"}));
            spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}});
        });
        let output = output.output().await?;
        let uptime: f64 = output.ok()?.split(' ').next().unwrap_or_default().parse()?;
        anyhow::ensure!(uptime > 1_000_000.0, "{uptime}");
        Ok(())
    })
    .differs("runc 1.1 does not know time namespaces yet");
    t.add("an unknown kind of namespace is refused by its name", async |c| {
        let container = c
            .container()
            .spec(|spec| spec::push(spec, "/linux/namespaces", json!({"type": "quantum"})));
        refused(container.create().await)?.saying("quantum")?;
        Ok(())
    });
}

fn shared_and_joined(t: &mut Registry) {
    t.add("a namespace that the spec leaves out is the host's", async |c| {
        let container = c.container().waiting().spec(|spec| {
            for kind in ["network", "uts", "ipc"] {
                spec::without_namespace(spec, kind);
            }
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                // The host's queues are not a container's to mount.
                mounts.retain(|mount| mount["type"] != "mqueue");
            }
        });
        let container = container.start().await?;
        for name in ["net", "uts", "ipc"] {
            same!(
                read_link(format!("/proc/{}/ns/{name}", container.pid.get()))?,
                read_link(format!("/proc/self/ns/{name}"))?,
                "{name}"
            );
        }
        Ok(())
    });
    t.add("namespaces of another container are joined by path", async |c| {
        let pause = c.container().waiting().start().await?;
        let pid = pause.pid.get();
        let member = c.container().waiting().spec(|spec| {
            for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
                spec::with_namespace_path(spec, kind, &format!("/proc/{pid}/ns/{name}"));
            }
        });
        let member = member.start().await?;
        for name in ["net", "ipc", "uts"] {
            same!(
                read_link(format!("/proc/{}/ns/{name}", member.pid.get()))?,
                read_link(format!("/proc/{pid}/ns/{name}"))?,
                "{name}"
            );
        }
        Ok(())
    });
    t.add("a container in another's PID namespace sees its processes", async |c| {
        let pause = c.container().args(&["probe", "spin"]).start().await?;
        let path = format!("/proc/{}/ns/pid", pause.pid.get());
        let member = c.container().args(&["ps", "-o", "pid,args"]);
        let output = member
            .spec(|spec| spec::with_namespace_path(spec, "pid", &path))
            .output()
            .await?;
        anyhow::ensure!(output.ok()?.contains("1 probe spin"), "{}", output.stdout);
        Ok(())
    });
    t.add("a container in another's PID namespace ends alone", async |c| {
        let pause = c.container().waiting().start().await?;
        let path = format!("/proc/{}/ns/pid", pause.pid.get());
        let member = c
            .container()
            .waiting()
            .spec(|spec| spec::with_namespace_path(spec, "pid", &path))
            .start()
            .await?;
        member.kill(9).await?;
        same!(member.wait().await?, 137);
        member.delete().await?;
        same!(pause.sh("echo alive").await?.ok()?, "alive\n");
        Ok(())
    });
    t.add(
        "exec into a container in another's PID namespace sees that namespace",
        async |c| {
            let pause = c.container().waiting().start().await?;
            let path = format!("/proc/{}/ns/pid", pause.pid.get());
            let member = c
                .container()
                .waiting()
                .spec(|spec| spec::with_namespace_path(spec, "pid", &path))
                .start()
                .await?;
            let exec = member.exec(&["probe", "wait"]).start().await?;
            same!(read_link(format!("/proc/{}/ns/pid", exec.pid.get()))?, read_link(path)?);
            Ok(())
        },
    );
    t.add("a path that is no namespace is refused by its name", async |c| {
        let file = c.directory.join("no-namespace");
        std::fs::write(&file, "")?;
        let path = file.display().to_string();
        let container = c
            .container()
            .spec(|spec| spec::with_namespace_path(spec, "network", &path));
        let refusal = refused(container.create().await)?;
        if c.is_nucleus() {
            refusal.saying("no-namespace")?;
        }
        Ok(())
    });
    t.add(
        "a path of a namespace that is missing is refused by its name",
        async |c| {
            let container = c
                .container()
                .spec(|spec| spec::with_namespace_path(spec, "network", "/no/such/netns"));
            refused(container.create().await)?.saying("/no/such/netns")?;
            Ok(())
        },
    );
    t.add("a path of another kind of namespace is refused", async |c| {
        let container = c
            .container()
            .spec(|spec| spec::with_namespace_path(spec, "network", "/proc/self/ns/uts"));
        refused(container.create().await)?;
        Ok(())
    });
}

fn users(t: &mut Registry) {
    t.add("a user namespace maps ids as the spec says", async |c| {
        let container = c.container().waiting().rootless_root(c).await?.start().await?;
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", container.pid.get()))?;
        same!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
        let status = crate::processes::text(container.pid.get(), "status");
        anyhow::ensure!(status.contains("Uid:\t100000\t100000"), "{status}");
        Ok(())
    });
    t.add("root of a user namespace is root inside", async |c| {
        let output = c
            .container()
            .args(&["id", "-u"])
            .rootless_root(c)
            .await?
            .output()
            .await?;
        same!(output.ok()?, "0\n");
        Ok(())
    });
    t.add("exec into a user namespace has its ids", async |c| {
        let container = c.container().waiting().rootless_root(c).await?.start().await?;
        let seen = container.exec(&["probe"]).output().await?.json()?;
        same!(seen["status"]["Uid"], "0 0 0 0");
        let exec = container.exec(&["probe", "wait"]).start().await?;
        let name = |pid| read_link(format!("/proc/{pid}/ns/user"));
        same!(name(exec.pid.get())?, name(container.pid.get())?);
        Ok(())
    });
    t.add("devices in a user namespace are there and usable", async |c| {
        let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && [ -c /dev/urandom ] && echo fine";
        let output = c.container().sh(script).rootless_root(c).await?.output().await?;
        same!(output.ok()?, "4\nfine\n");
        Ok(())
    });
}
