//! What a process is started with: arguments, user, limits and whatever else `process` of the spec says.

use anyhow::Result;
use serde_json::{Value, json};

use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

pub fn register(t: &mut Registry) {
    program(t);
    identity(t);
    attributes(t);
}

fn listed(value: &Value, entry: &str) -> bool {
    value.as_array().is_some_and(|list| list.contains(&json!(entry)))
}

fn program(t: &mut Registry) {
    t.add(
        "arguments arrive as they are, blanks and quotes and empty ones",
        async |c| {
            let args = ["a b", "", "'\"$x", "ünï"];
            let output = c.run(&[["printf", "[%s]"].as_slice(), &args].concat()).await?;
            same!(output.ok()?, "[a b][]['\"$x][ünï]");
            Ok(())
        },
    );
    t.add(
        "the environment is the spec's, and HOME comes from the image's users",
        async |c| {
            let seen = c
                .probe(|spec| spec["process"]["env"] = json!([spec::PATH, "COLOR=blue", "EMPTY="]))
                .await?;
            for entry in ["COLOR=blue", "EMPTY=", spec::PATH, "HOME=/root"] {
                anyhow::ensure!(listed(&seen["env"], entry), "no {entry} in {}", seen["env"]);
            }
            Ok(())
        },
    );
    t.add("HOME of the spec wins over the image's users", async |c| {
        let seen = c
            .probe(|spec| spec["process"]["env"] = json!([spec::PATH, "HOME=/elsewhere"]))
            .await?;
        anyhow::ensure!(listed(&seen["env"], "HOME=/elsewhere"), "{}", seen["env"]);
        Ok(())
    });
    t.add("nothing of the host's environment gets in", async |c| {
        let seen = c.probe(|_| ()).await?;
        let names: Vec<&str> = seen["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        anyhow::ensure!(
            names
                .iter()
                .all(|entry| entry.starts_with("PATH=") || entry.starts_with("HOME=")),
            "{names:?}"
        );
        Ok(())
    });
    t.add("the directory is the spec's", async |c| {
        same!(
            c.probe(|spec| spec["process"]["cwd"] = json!("/usr/data")).await?["cwd"],
            "/usr/data"
        );
        Ok(())
    });
    t.add("a directory that is missing is made", async |c| {
        same!(
            c.probe(|spec| spec["process"]["cwd"] = json!("/made/for/this")).await?["cwd"],
            "/made/for/this"
        );
        Ok(())
    });
    t.add("a program is looked for in the spec's PATH", async |c| {
        let container = c.container().args(&["probe", "exit", "3"]);
        let container = container.spec(|spec| spec["process"]["env"] = json!(["PATH=/nowhere:/bin"]));
        same!(container.output().await?.code, 3);
        Ok(())
    });
    t.add("a program relative to the directory is found", async |c| {
        let container = c.container().args(&["./probe", "exit", "4"]);
        same!(
            container
                .spec(|spec| spec["process"]["cwd"] = json!("/bin"))
                .output()
                .await?
                .code,
            4
        );
        Ok(())
    });
    t.add("a missing program fails at create and is named", async |c| {
        refused(c.container().args(&["no-such-program"]).create().await)?.saying("no-such-program")?;
        Ok(())
    });
    t.add(
        "a missing program by its path fails at create and is named",
        async |c| {
            refused(c.container().args(&["/no/such/program"]).create().await)?.saying("/no/such/program")?;
            Ok(())
        },
    );
    t.add(
        "a program that may not be executed fails at create and is named",
        async |c| {
            refused(c.container().args(&["/etc/not-executable"]).create().await)?.saying("/etc/not-executable")?;
            Ok(())
        },
    );
    t.add("a directory is not a program", async |c| {
        refused(c.container().args(&["/etc"]).create().await)?.saying("/etc")?;
        Ok(())
    });
    t.add("a file that is no program does not run", async |c| {
        let container = c.container().args(&["/bin/not-a-program"]).create().await?;
        // Whether the kernel takes a file is known at execve alone: the start fails, or the process ends at once.
        match container.start().await {
            Ok(()) => anyhow::ensure!(container.wait().await? != 0),
            Err(error) => drop(refused::<(), _>(Err(error))?),
        }
        Ok(())
    });
    t.add("an empty command is refused", async |c| {
        refused(c.container().args(&[]).create().await)?;
        Ok(())
    });
    t.add("exactly the three streams are open", async |c| {
        let seen = c.probe(|_| ()).await?;
        let open: Vec<&str> = seen["fds"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(fd, _)| fd.as_str())
            .collect();
        same!(open, ["0", "1", "2"]);
        Ok(())
    });
}

fn identity(t: &mut Registry) {
    t.add("user, group and additional groups are the spec's", async |c| {
        let user = json!({"uid": 1000, "gid": 2000, "additionalGids": [2001, 5]});
        let seen = c.probe(|spec| spec["process"]["user"] = user).await?;
        same!(seen["status"]["Uid"], "1000 1000 1000 1000");
        same!(seen["status"]["Gid"], "2000 2000 2000 2000");
        same!(seen["status"]["Groups"], "5 2001");
        anyhow::ensure!(listed(&seen["env"], "HOME=/home/tester"), "{}", seen["env"]);
        Ok(())
    });
    t.add("without additional groups there are none", async |c| {
        same!(c.probe(|_| ()).await?["status"]["Groups"], "");
        Ok(())
    });
    t.add("a user that the image does not know can run", async |c| {
        let seen = c
            .probe(|spec| spec["process"]["user"] = json!({"uid": 31337, "gid": 31337}))
            .await?;
        same!(seen["status"]["Uid"], "31337 31337 31337 31337");
        anyhow::ensure!(listed(&seen["env"], "HOME=/"), "{}", seen["env"]);
        Ok(())
    });
    t.add("another user can write to its streams by path", async |c| {
        let container = c
            .container()
            .sh("echo by path > /proc/self/fd/1 && echo as well > /dev/stderr");
        let output = container
            .spec(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}))
            .output()
            .await?;
        same!((output.ok()?, output.stderr.as_str()), ("by path\n", "as well\n"));
        Ok(())
    });
    t.add("the umask is the spec's", async |c| {
        same!(
            c.probe(|spec| spec["process"]["user"]["umask"] = json!(0o077)).await?["status"]["Umask"],
            "0077"
        );
        Ok(())
    });
    t.add("the umask is 022 where the spec says none", async |c| {
        same!(c.probe(|_| ()).await?["status"]["Umask"], "0022");
        Ok(())
    });
    t.add("no_new_privs is set or not as the spec says", async |c| {
        for (wanted, shown) in [(true, "1"), (false, "0")] {
            let seen = c
                .probe(|spec| spec["process"]["noNewPrivileges"] = json!(wanted))
                .await?;
            same!(seen["status"]["NoNewPrivs"], shown);
        }
        Ok(())
    });
    t.add("init leads its own session", async |c| {
        let seen = c.probe(|_| ()).await?;
        same!((&seen["session"], &seen["pgrp"]), (&json!(1), &json!(1)));
        Ok(())
    });
}

async fn limit(c: &crate::context::Ctx, name: &str, soft: u64, hard: u64, shown: &str) -> Result<()> {
    let limits = json!([{"type": name, "soft": soft, "hard": hard}]);
    let seen = c.probe(|spec| spec["process"]["rlimits"] = limits).await?;
    same!(seen["limits"][shown], json!([soft.to_string(), hard.to_string()]));
    Ok(())
}

fn attributes(t: &mut Registry) {
    t.add("limits are the spec's", async |c| {
        limit(c, "RLIMIT_NOFILE", 100, 200, "Max open files").await?;
        limit(c, "RLIMIT_CORE", 0, 0, "Max core file size").await?;
        limit(c, "RLIMIT_NPROC", 500, 600, "Max processes").await?;
        limit(c, "RLIMIT_STACK", 1 << 20, 1 << 24, "Max stack size").await
    });
    t.add("an unknown limit is refused by its name", async |c| {
        let limits = json!([{"type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1}]);
        refused(
            c.container()
                .spec(|spec| spec["process"]["rlimits"] = limits)
                .create()
                .await,
        )?
        .saying("RLIMIT_PATIENCE")?;
        Ok(())
    });
    t.add("a limit given twice is refused", async |c| {
        let one = json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10});
        refused(
            c.container()
                .spec(|spec| spec["process"]["rlimits"] = json!([one, one]))
                .create()
                .await,
        )?
        .saying("RLIMIT_NOFILE")?;
        Ok(())
    })
    .differs("runc 1.1 takes the last of them; the runtime specification wants an error");
    t.add("the OOM score adjustment is the spec's", async |c| {
        same!(
            c.probe(|spec| spec["process"]["oomScoreAdj"] = json!(321)).await?["oom_score_adj"],
            "321"
        );
        Ok(())
    });
    t.add("a namespaced sysctl is set", async |c| {
        let output = c.container().args(&[
            "cat",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            "/proc/sys/kernel/shm_rmid_forced",
        ]);
        let sysctl = json!({"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"});
        same!(
            output
                .spec(|spec| spec["linux"]["sysctl"] = sysctl)
                .output()
                .await?
                .ok()?,
            "80\n1\n"
        );
        Ok(())
    });
    t.add("a sysctl of the whole host is refused by its key", async |c| {
        let sysctl = json!({"kernel.panic": "1"});
        refused(
            c.container()
                .spec(|spec| spec["linux"]["sysctl"] = sysctl)
                .create()
                .await,
        )?
        .saying("kernel.panic")?;
        Ok(())
    });
    t.add(
        "a network sysctl is refused by its key where the network is the host's",
        async |c| {
            let container = c.container().spec(|spec| {
                spec::without_namespace(spec, "network");
                spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            });
            refused(container.create().await)?.saying("net.ipv4.ip_forward")?;
            Ok(())
        },
    );
    t.add(
        "a network sysctl is refused by its key where the joined network is the host's",
        async |c| {
            // The path is the host's own namespace, so that without the refusal the host's setting would change.
            let key = "net.ipv4.ip_unprivileged_port_start";
            let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
            let before = std::fs::read_to_string(file)?;
            let container = c.container().spec(|spec| {
                spec::with_namespace_path(spec, "network", "/proc/self/ns/net");
                spec["linux"]["sysctl"] = json!({key: "81"});
            });
            refused(container.create().await)?.saying(key)?;
            same!(std::fs::read_to_string(file)?, before);
            Ok(())
        },
    );
    t.add("a sysctl that does not exist is refused by its key", async |c| {
        let sysctl = json!({"net.ipv4.no_such_key": "1"});
        let refusal = refused(
            c.container()
                .spec(|spec| spec["linux"]["sysctl"] = sysctl)
                .create()
                .await,
        )?;
        refusal.saying("no_such_key")?;
        Ok(())
    });
    t.add("a personality is the spec's", async |c| {
        let container = c.container().args(&["uname", "-m"]);
        let output = container
            .spec(|spec| spec["linux"]["personality"] = json!({"domain": "LINUX32"}))
            .output()
            .await?;
        anyhow::ensure!(
            output.ok()? != format!("{}\n", std::env::consts::ARCH),
            "{}",
            output.stdout
        );
        Ok(())
    })
    .differs("runc 1.1 does not know `personality` yet");
    t.add("a scheduling policy is the spec's", async |c| {
        let scheduler = json!({"policy": "SCHED_BATCH", "nice": 5});
        let seen = c.probe(|spec| spec["process"]["scheduler"] = scheduler).await?;
        // SCHED_BATCH of sched(7).
        same!((&seen["sched_policy"], &seen["nice"]), (&json!(3), &json!(5)));
        Ok(())
    })
    .differs("runc 1.1 does not know `scheduler` yet");
    t.add("an I/O priority is the spec's", async |c| {
        let container = c.container().args(&["ionice"]);
        let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        let output = container
            .spec(|spec| spec["process"]["ioPriority"] = priority)
            .output()
            .await?;
        same!(output.ok()?, "best-effort: prio 6\n");
        Ok(())
    })
    .differs("runc 1.1 does not know `ioPriority` yet");
    t.add("a program has a session keyring of its own", async |c| {
        let container = c
            .container()
            .args(&["cat", "/proc/keys"])
            .spec(|spec| spec["linux"]["maskedPaths"] = json!([]));
        let wanted = format!("_ses.{}:", container.id);
        let output = container.output().await?;
        anyhow::ensure!(output.ok()?.contains(&wanted), "no {wanted} in {}", output.stdout);
        Ok(())
    });
}
