//! Further processes in a running container.

use containerd_client::tonic::Code;
use containerd_client::types::v1::Status;
use futures_util::stream::{FuturesUnordered, TryStreamExt};
use prost_types::Any;
use serde_json::json;

use crate::api::{PROCESS_TYPE, json_any};
use crate::bench::idle;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same, spec};

pub fn register(t: &mut Registry) {
    life(t);
    surroundings(t);
    refusals(t);
}

fn life(t: &mut Registry) {
    t.add(
        "exec runs a program in the container and gives back its output and exit code",
        async |c| {
            let container = c.container().waiting().start().await?;
            let output = container.sh("echo out; echo err >&2; exit 7").await?;
            same!(
                (output.code, output.stdout.as_str(), output.stderr.as_str()),
                (7, "out\n", "err\n")
            );
            Ok(())
        },
    );
    t.add("an exec is created, then running, then stopped, then gone", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).create().await?;
        same!(exec.status().await?, Status::Created);
        exec.start().await?;
        same!(exec.status().await?, Status::Running);
        anyhow::ensure!(processes::is_alive(exec.pid.get()));
        exec.kill(9).await?;
        same!(exec.wait().await?, 137);
        same!(exec.status().await?, Status::Stopped);
        same!(exec.delete().await?, 137);
        refused(exec.state().await)?.with_code(Code::NotFound)?;
        same!(container.status().await?, Status::Running);
        Ok(())
    });
    t.add("an exec's id can be used again after its delete", async |c| {
        let container = c.container().waiting().start().await?;
        for word in ["first", "second"] {
            same!(
                container.exec(&["echo", word]).id("same").output().await?.ok()?,
                format!("{word}\n")
            );
            // The names of the test's own FIFOs are of the exec.
            for stream in ["stdout", "stderr"] {
                std::fs::remove_file(c.directory.join(format!("{}same-{stream}", container.id)))?;
            }
        }
        Ok(())
    });
    t.add("exec works in a task that is created and not started", async |c| {
        let container = c.container().waiting().create().await?;
        same!(container.exec(&["echo", "early"]).output().await?.ok()?, "early\n");
        container.start().await?;
        same!(container.sh("echo late").await?.ok()?, "late\n");
        Ok(())
    });
    t.add("execs end with their container's init", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        container.kill(9).await?;
        same!(exec.wait().await?, 137);
        same!(container.wait().await?, 137);
        same!(exec.delete().await?, 137);
        Ok(())
    });
    t.add(
        "forty execs at once each give their own output and exit code",
        async |c| {
            let container = c.container().waiting().start().await?;
            let mut execs = Vec::new();
            for number in 0..40 {
                let script = format!("echo {number}; exit {number}");
                execs.push(container.exec(&["sh", "-c", &script]).create().await?);
            }
            let starts: FuturesUnordered<_> = execs.iter().map(|exec| exec.start()).collect();
            starts.try_collect::<Vec<()>>().await?;
            for (number, exec) in execs.iter().enumerate() {
                let output = exec.output().await?;
                same!((output.code as usize, output.stdout), (number, format!("{number}\n")));
                exec.delete().await?;
            }
            Ok(())
        },
    )
    .within(60);
    t.add(
        "a child that keeps an exec's stdout open does not hold its exit or delete",
        async |c| {
            let container = c.container().waiting().start().await?;
            let begun = std::time::Instant::now();
            let exec = container.exec(&["probe", "background"]).start().await?;
            same!(exec.wait().await?, 0);
            exec.delete().await?;
            anyhow::ensure!(begun.elapsed().as_secs() < 15, "took {:?}", begun.elapsed());
            same!(container.status().await?, Status::Running);
            Ok(())
        },
    );
    t.add(
        "an exec's orphan stays in the container and is reaped at its end",
        async |c| {
            let container = c.container().waiting().start().await?;
            container
                .exec(&["sh", "-c", "probe wait >/dev/null 2>&1 & exit 0"])
                .output()
                .await?
                .ok()?;
            c.eventually("the orphan is there", async || Ok(container.pids().await?.len() == 2))
                .await
        },
    );
    t.add(
        "an idle shim gives back what only the create took, and execs as before",
        async |c| {
            let container = c.container().waiting().start().await?;
            let helpers = idle::helpers_of(&[container.pid.get()])?;
            // A shim and a holder; of their program's megabytes hardly any.
            c.eventually("little of it is in memory", async || {
                Ok(idle::memory(&helpers, "Rss:")? < 4096.0)
            })
            .await?;
            same!(container.sh("echo out").await?.stdout, "out\n");
            same!(container.sh("echo out").await?.stdout, "out\n");
            Ok(())
        },
    )
    .differs("a program in Go keeps it")
    .gvisor_differs("a sentry takes more than that");
}

fn surroundings(t: &mut Registry) {
    t.add(
        "exec has the environment, directory, user and groups of its own description",
        async |c| {
            let container = c.container().waiting().start().await?;
            let probe = container.exec(&["/bin/probe"]).process(|process| {
                process["env"] = json!(["A=1", "B=two words"]);
                process["cwd"] = json!("/tmp");
                process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 2001]});
                process["capabilities"] = json!({});
            });
            let seen = probe.output().await?.json()?;
            anyhow::ensure!(
                seen["env"]
                    .as_array()
                    .is_some_and(|env| env.contains(&json!("B=two words"))),
                "{}",
                seen["env"]
            );
            same!(seen["cwd"], "/tmp");
            same!(seen["status"]["Uid"], "1000 1000 1000 1000");
            same!(seen["status"]["Gid"], "1000 1000 1000 1000");
            same!(seen["status"]["Groups"], "2000 2001");
            same!(seen["status"]["CapEff"], "0000000000000000");
            Ok(())
        },
    );
    t.add("exec is in init's namespaces and cgroups", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let of = |pid| std::fs::read_link(format!("/proc/{pid}/ns/{name}"));
            same!(of(exec.pid.get())?, of(container.pid.get())?, "{name}");
        }
        same!(
            processes::text(exec.pid.get(), "cgroup"),
            processes::text(container.pid.get(), "cgroup")
        );
        Ok(())
    });
    t.add("exec sees init and other execs as processes", async |c| {
        let container = c.container().waiting().start().await?;
        let _other = container.exec(&["probe", "spin"]).start().await?;
        let listing = container.sh("ps -o pid,args").await?;
        let listing = listing.ok()?;
        anyhow::ensure!(
            listing.contains("1 probe wait") && listing.contains("probe spin"),
            "{listing}"
        );
        Ok(())
    });
    t.add("an exec's parent is outside of the container", async |c| {
        let container = c.container().waiting().start().await?;
        same!(container.exec(&["probe"]).output().await?.json()?["ppid"], 0);
        Ok(())
    });
    t.add("exec has exactly its three streams open", async |c| {
        let container = c.container().waiting().start().await?;
        let seen = container.exec(&["probe"]).output().await?.json()?;
        same!(
            seen["fds"]
                .as_object()
                .map(|fds| fds.keys().cloned().collect::<Vec<_>>()),
            Some(["0", "1", "2"].map(str::to_owned).to_vec())
        );
        Ok(())
    });
    t.add(
        "exec has the limits and no_new_privs of its own description",
        async |c| {
            let container = c.container().waiting().start().await?;
            let exec = container.exec(&["probe"]).process(|process| {
                process["noNewPrivileges"] = json!(false);
                process["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
            });
            let seen = exec.output().await?.json()?;
            same!(seen["status"]["NoNewPrivs"], "0");
            same!(seen["limits"]["Max core file size"], json!(["0", "0"]));
            let seen = container.exec(&["probe"]).output().await?.json()?;
            same!(seen["status"]["NoNewPrivs"], "1");
            Ok(())
        },
    );
    t.add(
        "exec with stdin reads what the client writes until it is closed",
        async |c| {
            let container = c.container().waiting().start().await?;
            let exec = container.exec(&["probe", "echo"]).stdin().start().await?;
            exec.write("one\n").await?;
            exec.stdout.wait_for("one\n").await?;
            exec.write("two\n").await?;
            exec.end_stdin().await?;
            same!(exec.output().await?.ok()?, "one\ntwo\n");
            Ok(())
        },
    );
    t.add(
        "exec finds its program by its own PATH and by paths relative to its directory",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.sh("mkdir /opt; cp /bin/probe /opt/tool").await?.ok()?;
            let by_path = container
                .exec(&["tool", "exit", "4"])
                .process(|process| process["env"] = json!(["PATH=/opt"]));
            same!(by_path.output().await?.code, 4);
            let relative = container
                .exec(&["./tool", "exit", "5"])
                .process(|process| process["cwd"] = json!("/opt"));
            same!(relative.output().await?.code, 5);
            Ok(())
        },
    );
    t.add("an exec's pid is listed with its id", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        let listed = container.pids().await?;
        let of_exec = listed.iter().find(|process| process.pid == exec.pid.get());
        let details = of_exec.and_then(|process| process.info.clone());
        let details = details.ok_or_else(|| anyhow::anyhow!("no details in {listed:?}"))?;
        anyhow::ensure!(
            details.type_url.ends_with("containerd.runc.v1.ProcessDetails"),
            "{}",
            details.type_url
        );
        // The message has one field, a string with number 1.
        let wanted = [&[10, u8::try_from(exec.exec_id.len())?], exec.exec_id.as_bytes()].concat();
        same!(details.value, wanted);
        let of_init = listed.iter().find(|process| process.pid == container.pid.get());
        same!(of_init.is_some_and(|process| process.info.is_none()), true);
        Ok(())
    });
}

fn refusals(t: &mut Registry) {
    t.add(
        "exec of a missing program names it and leaves the container alone",
        async |c| {
            let container = c.container().waiting().start().await?;
            let exec = container.exec(&["no-such-program"]).create().await?;
            refused(exec.start().await)?.saying("no-such-program")?;
            same!(exec.status().await?, Status::Created);
            exec.delete().await?;
            same!(container.sh("echo fine").await?.ok()?, "fine\n");
            Ok(())
        },
    );
    t.add("exec of a file that may not be executed names it", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["/etc/not-executable"]).create().await?;
        refused(exec.start().await)?.saying("/etc/not-executable")?;
        Ok(())
    });
    t.add("exec in a directory that is missing is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container
            .exec(&["true"])
            .process(|process| process["cwd"] = json!("/no/such/directory"))
            .create()
            .await?;
        refused(exec.start().await)?.saying("/no/such/directory")?;
        Ok(())
    });
    t.add(
        "execs that fail at once, many times, leave the next one working",
        async |c| {
            let container = c.container().waiting().start().await?;
            for round in 0..40 {
                let failed = container.exec(&["/no/such/program"]).output().await;
                anyhow::ensure!(failed.is_err(), "round {round}: {failed:?}");
            }
            same!(container.sh("echo fine").await?.ok()?, "fine\n");
            Ok(())
        },
    );
    t.add("a failed start of an exec answers those who wait for it", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["no-such-program"]).create().await?;
        let (waited, started) = tokio::join!(exec.wait(), exec.start());
        refused(started)?;
        waited.map(drop)
    });
    t.add("a second exec with the same id is refused as existing", async |c| {
        let container = c.container().waiting().start().await?;
        let _first = container
            .exec(&["true"])
            .id("twin")
            .streams(["", "", ""])
            .create()
            .await?;
        let second = container
            .exec(&["true"])
            .id("twin")
            .streams(["", "", ""])
            .create()
            .await;
        refused(second)?.with_code(Code::AlreadyExists)?;
        Ok(())
    });
    t.add("start of an exec twice is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        refused(exec.start().await)?;
        same!(exec.status().await?, Status::Running);
        Ok(())
    })
    .new_runc_differs("it loses count of its processes here, and leaves its socket when it ends");
    t.add("delete of a running exec is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        refused(exec.delete().await)?;
        same!(exec.status().await?, Status::Running);
        Ok(())
    });
    t.add("an exec that was never started can be deleted", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).create().await?;
        exec.delete().await?;
        refused(exec.delete().await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("exec in a stopped container is refused", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        match container.exec(&["true"]).create().await {
            Ok(exec) => refused(exec.start().await).map(drop),
            Err(error) => refused::<(), _>(Err(error)).map(drop),
        }
    });
    t.add("start of an exec after init has ended is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).create().await?;
        container.kill(9).await?;
        container.wait().await?;
        let refusal = refused(exec.start().await)?;
        if c.is_nucleus() {
            refusal.with_code(Code::FailedPrecondition)?;
        }
        Ok(())
    });
    t.add("exec with a description that is no JSON is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let garbage = Any {
            type_url: PROCESS_TYPE.to_owned(),
            value: b"{\"args\": [".to_vec(),
        };
        match container.exec(&["true"]).raw(garbage).create().await {
            Ok(exec) => refused(exec.start().await)?,
            Err(error) => refused::<(), _>(Err(error))?,
        };
        same!(container.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    });
    t.add(
        "exec with a description of wrong types is refused by the field's name",
        async |c| {
            let container = c.container().waiting().start().await?;
            let wrong = json_any(
                PROCESS_TYPE,
                &json!({"args": ["true"], "cwd": "/", "user": {"uid": "zero", "gid": 0}}),
            );
            let refusal = match container.exec(&["true"]).raw(wrong).create().await {
                Ok(exec) => refused(exec.start().await)?,
                Err(error) => refused::<(), _>(Err(error))?,
            };
            if c.is_nucleus() {
                refusal.with_code(Code::InvalidArgument)?.saying("user.uid")?;
            }
            Ok(())
        },
    );
    t.add("exec with a description that names no user runs as root", async |c| {
        let container = c.container().waiting().start().await?;
        let short = json_any(
            PROCESS_TYPE,
            &json!({"args": ["id", "-u"], "cwd": "/", "env": [spec::PATH]}),
        );
        same!(container.exec(&[]).raw(short).output().await?.ok()?, "0\n");
        Ok(())
    });
    t.add("exec with an empty command is refused", async |c| {
        let container = c.container().waiting().start().await?;
        match container.exec(&[]).create().await {
            Ok(exec) => refused(exec.start().await)?,
            Err(error) => refused::<(), _>(Err(error))?,
        };
        same!(container.status().await?, Status::Running);
        Ok(())
    });
}
