//! What people type: `ctr`.

use anyhow::{Context as _, Result};

use crate::context::{Ctx, Output};
use crate::harness::Registry;
use crate::image::NAME;
use crate::pty::Terminal;
use crate::{processes, same};

/// `ctr run` with these flags, as this container, to its end.
async fn run(c: &Ctx, flags: &[&str], id: &str, command: &[&str]) -> Result<Output> {
    let args = [&["run", "--runtime", c.runtime.name()], flags, &[NAME, id], command].concat();
    c.ctr(&args).await
}

/// A container in the background, by `ctr run -d`.
async fn detached(c: &Ctx, flags: &[&str]) -> Result<String> {
    let id = c.new_id();
    run(c, &[&["-d"], flags].concat(), &id, &["probe", "wait"])
        .await?
        .ok()?;
    Ok(id)
}

async fn task(c: &Ctx, args: &[&str]) -> Result<Output> {
    c.ctr(&[&["task"], args].concat()).await
}

async fn end(c: &Ctx, id: &str) -> Result<()> {
    task(c, &["delete", "--force", id]).await?.ok()?;
    c.ctr(&["container", "delete", id]).await?.ok()?;
    Ok(())
}

pub fn register(t: &mut Registry) {
    runs(t);
    flags(t);
    tasks(t);
    terminals(t);
}

fn runs(t: &mut Registry) {
    t.add("run --rm shows the output and leaves nothing", async |c| {
        let id = c.new_id();
        same!(run(c, &["--rm"], &id, &["echo", "hello"]).await?.ok()?, "hello\n");
        anyhow::ensure!(!c.ctr(&["container", "ls", "-q"]).await?.ok()?.contains(&id));
        Ok(())
    });
    t.add("run ends with the program's exit code", async |c| {
        let id = c.new_id();
        same!(run(c, &["--rm"], &id, &["probe", "exit", "23"]).await?.code, 23);
        Ok(())
    });
    t.add("run of a missing program fails and names it", async |c| {
        let id = c.new_id();
        let output = run(c, &["--rm"], &id, &["no-such-program"]).await?;
        anyhow::ensure!(
            output.code != 0 && output.stderr.contains("no-such-program"),
            "{output:?}"
        );
        Ok(())
    });
    t.add("run -d leaves it running, delete --force ends it", async |c| {
        let id = detached(c, &[]).await?;
        let listing = task(c, &["ls"]).await?;
        anyhow::ensure!(
            listing
                .ok()?
                .lines()
                .any(|line| line.contains(&id) && line.contains("RUNNING")),
            "{listing:?}"
        );
        end(c, &id).await
    });
    t.add("run --pid-file writes the pid", async |c| {
        let file = c.directory.join("pid").display().to_string();
        let id = detached(c, &["--pid-file", &file]).await?;
        let pid: u32 = std::fs::read_to_string(&file)?.trim().parse()?;
        same!(processes::text(pid, "cmdline"), "probe\0wait\0");
        end(c, &id).await
    });
}

fn flags(t: &mut Registry) {
    t.add("run --env and --cwd do what they say", async |c| {
        let id = c.new_id();
        let flags = ["--rm", "--env", "COLOR=blue", "--cwd", "/usr/data"];
        let output = run(c, &flags, &id, &["sh", "-c", "echo $COLOR $(pwd)"]).await?;
        same!(output.ok()?, "blue /usr/data\n");
        Ok(())
    });
    t.add("run --user takes a name of the image", async |c| {
        let id = c.new_id();
        same!(
            run(c, &["--rm", "--user", "tester"], &id, &["id", "-u"]).await?.ok()?,
            "1000\n"
        );
        Ok(())
    })
    .since_containerd_2("its ctr has no --user");
    t.add("run --read-only makes the root read-only", async |c| {
        let id = c.new_id();
        let output = run(c, &["--rm", "--read-only"], &id, &["touch", "/x"]).await?;
        anyhow::ensure!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
        Ok(())
    });
    t.add("run --mount brings in a directory of the host", async |c| {
        let source = c.directory.join("shared");
        std::fs::create_dir(&source)?;
        std::fs::write(source.join("file"), "from the host\n")?;
        let mount = format!("type=bind,src={},dst=/mnt/data,options=rbind:ro", source.display());
        let id = c.new_id();
        let output = run(
            c,
            &["--rm", "--mount", &mount],
            &id,
            &["sh", "-c", "cat /mnt/data/file; touch /mnt/data/x"],
        )
        .await?;
        anyhow::ensure!(
            output.stdout == "from the host\n" && output.stderr.contains("Read-only"),
            "{output:?}"
        );
        Ok(())
    });
    t.add("run --memory-limit and --cpus set limits", async |c| {
        let id = detached(c, &["--memory-limit", "67108864", "--cpus", "0.5"]).await?;
        let read = |controller: &str, file: &str| {
            std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{}/{id}/{file}", c.namespace))
        };
        same!(read("memory", "memory.limit_in_bytes")?, "67108864\n");
        same!(read("cpu", "cpu.cfs_quota_us")?, "50000\n");
        end(c, &id).await
    });
    t.add("run --cgroup names the cgroup", async |c| {
        let path = format!("/{}/named", c.namespace);
        let id = detached(c, &["--cgroup", &path]).await?;
        anyhow::ensure!(std::path::Path::new(&format!("/sys/fs/cgroup/memory{path}")).is_dir());
        end(c, &id).await
    });
    t.add("run --net-host shares the host's network", async |c| {
        let id = c.new_id();
        let output = run(c, &["--rm", "--net-host"], &id, &["readlink", "/proc/self/ns/net"]).await?;
        same!(
            output.ok()?.trim_end(),
            std::fs::read_link("/proc/self/ns/net")?.display().to_string()
        );
        Ok(())
    });
    t.add(
        "run --privileged gives the capabilities and devices of the host",
        async |c| {
            let id = c.new_id();
            let output = run(
                c,
                &["--rm", "--privileged"],
                &id,
                &["sh", "-c", "grep CapEff /proc/self/status"],
            )
            .await?;
            let status = processes::text(std::process::id(), "status");
            let own = status
                .lines()
                .find(|line| line.starts_with("CapEff"))
                .unwrap_or_default()
                .to_owned();
            same!(output.ok()?.trim_end(), own);
            Ok(())
        },
    );
    t.add("run --uidmap and --gidmap put it into a user namespace", async |c| {
        let id = c.new_id();
        let flags = ["--rm", "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"];
        let output = run(c, &flags, &id, &["cat", "/proc/self/uid_map"]).await?;
        same!(
            output.ok()?.split_whitespace().collect::<Vec<_>>(),
            ["0", "200000", "65536"]
        );
        remove_shifted_images(c).await
    });
    t.add("run --device brings that device", async |c| {
        let id = c.new_id();
        let output = run(
            c,
            &["--rm", "--device", "/dev/fuse"],
            &id,
            &["stat", "-c", "%t:%T", "/dev/fuse"],
        )
        .await?;
        same!(output.ok()?, "a:e5\n");
        Ok(())
    });
}

/// `ctr run --uidmap` leaves a committed copy of the image; it is no container's.
async fn remove_shifted_images(c: &Ctx) -> Result<()> {
    let listing = c.ctr(&["snapshot", "ls"]).await?;
    for line in listing.ok()?.lines().skip(1) {
        if let Some(key) = line.split_whitespace().next()
            && key != c.image.chain_id
            && line.contains("Committed")
        {
            // containerd's own collector may be faster.
            c.ctr(&["snapshot", "rm", key]).await?;
        }
    }
    Ok(())
}

fn tasks(t: &mut Registry) {
    t.add("task exec runs a command", async |c| {
        let id = detached(c, &[]).await?;
        let output = task(c, &["exec", "--exec-id", "one", &id, "sh", "-c", "echo inside; exit 4"]).await?;
        same!((output.code, output.stdout.as_str()), (4, "inside\n"));
        end(c, &id).await
    });
    t.add("task exec --user and --cwd do what they say", async |c| {
        let id = detached(c, &[]).await?;
        let args = [
            "exec",
            "--exec-id",
            "one",
            "--user",
            "1000",
            "--cwd",
            "/tmp",
            &id,
            "sh",
            "-c",
            "id -u; pwd",
        ];
        same!(task(c, &args).await?.ok()?, "1000\n/tmp\n");
        end(c, &id).await
    });
    t.add("task kill ends it", async |c| {
        let id = detached(c, &[]).await?;
        task(c, &["kill", "-s", "SIGKILL", &id]).await?.ok()?;
        c.eventually("it is stopped", async || {
            Ok(task(c, &["ls"])
                .await?
                .ok()?
                .lines()
                .any(|line| line.contains(&id) && line.contains("STOPPED")))
        })
        .await?;
        task(c, &["delete", &id]).await?.ok()?;
        c.ctr(&["container", "delete", &id]).await?.ok()?;
        Ok(())
    });
    t.add("task pause and resume do what they say", async |c| {
        let id = detached(c, &[]).await?;
        for (verb, state) in [("pause", "PAUSED"), ("resume", "RUNNING")] {
            task(c, &[verb, &id]).await?.ok()?;
            let listing = task(c, &["ls"]).await?;
            anyhow::ensure!(
                listing
                    .ok()?
                    .lines()
                    .any(|line| line.contains(&id) && line.contains(state)),
                "{listing:?}"
            );
        }
        end(c, &id).await
    });
    t.add("task metrics shows memory and CPU", async |c| {
        let id = detached(c, &[]).await?;
        let output = task(c, &["metrics", &id]).await?;
        let text = output.ok()?;
        for word in ["memory.usage_in_bytes", "cpuacct.usage"] {
            anyhow::ensure!(text.contains(word), "no {word} in {text}");
        }
        end(c, &id).await
    });
    t.add("task ps lists the processes", async |c| {
        let id = detached(c, &[]).await?;
        let output = task(c, &["ps", &id]).await?;
        same!(output.ok()?.lines().count(), 2, "{output:?}");
        end(c, &id).await
    });
    t.add("events shows a container's life", async |c| {
        let mut command = c.daemon.ctr(&c.namespace);
        command
            .arg("events")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped());
        let mut events = command.spawn().context("run ctr events")?;
        let stdout = events.stdout.take().context("no stdout")?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
        let mut seen = String::new();
        // Subscribed at some time after its start: containers run until one is seen whole.
        for _ in 0..10 {
            let id = c.new_id();
            run(c, &["--rm"], &id, &["true"]).await?.ok()?;
            while let Ok(line) = tokio::time::timeout(std::time::Duration::from_millis(300), lines.next_line()).await {
                seen.push_str(&line?.unwrap_or_default());
                seen.push('\n');
            }
            if seen.contains("/tasks/delete") {
                break;
            }
        }
        events.kill().await?;
        for topic in ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
            anyhow::ensure!(seen.contains(topic), "no {topic} in {seen}");
        }
        Ok(())
    });
}

fn terminals(t: &mut Registry) {
    t.add("run -t gives a terminal", async |c| {
        let id = c.new_id();
        let mut command = c.daemon.ctr(&c.namespace);
        command.args(["run", "--rm", "-t", "--runtime", c.runtime.name(), NAME, &id]);
        command.args(["sh", "-c", "tty; read word; echo got $word; exit 5"]);
        let mut terminal = Terminal::start(command)?;
        terminal.wait_for("/dev/pts/0").await?;
        terminal.type_text("pear\n")?;
        terminal.wait_for("got pear").await?;
        same!(terminal.child.wait().await?.code(), Some(5));
        Ok(())
    });
    t.add("task exec -t gives a terminal", async |c| {
        let id = detached(c, &[]).await?;
        let mut command = c.daemon.ctr(&c.namespace);
        command.args([
            "task",
            "exec",
            "-t",
            "--exec-id",
            "one",
            &id,
            "sh",
            "-c",
            "tty; read word; echo got $word",
        ]);
        let mut terminal = Terminal::start(command)?;
        terminal.wait_for("/dev/pts/0").await?;
        terminal.type_text("plum\n")?;
        terminal.wait_for("got plum").await?;
        same!(terminal.child.wait().await?.code(), Some(0));
        end(c, &id).await
    });
    t.add("task attach shows what a running container writes", async |c| {
        let id = c.new_id();
        let container = c.container().sh("while :; do echo tick; sleep 0.1; done");
        let mut container = container;
        container.set_id(&id);
        let container = container.start().await?;
        container.stdout.wait_for("tick").await?;
        let mut command = c.daemon.ctr(&c.namespace);
        command.args(["task", "attach", &container.id]);
        let mut terminal = Terminal::start(command)?;
        terminal.wait_for("tick").await?;
        container.kill(9).await?;
        terminal.child.wait().await?;
        Ok(())
    });
}
