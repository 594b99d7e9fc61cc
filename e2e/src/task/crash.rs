//! Shims and containerd that die.

use anyhow::{Context as _, Result};
use containerd_client::tonic::Code;
use containerd_client::types::v1::Status;

use crate::container::Container;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same};

/// Kills the shim of a container.
fn kill_shim(container: &Container<'_>) -> Result<u32> {
    let shim = processes::shim_of(container.pid.get()).context("the container's process has no parent")?;
    processes::kill(shim);
    Ok(shim)
}

/// containerd has noticed that the shim is gone, and the container's process is gone with it.
async fn cleaned_up(c: &Ctx, container: &Container<'_>) -> Result<()> {
    let pid = container.pid.get();
    c.eventually("the container's process is gone", async || {
        Ok(!processes::is_alive(pid))
    })
    .await?;
    c.eventually("containerd has forgotten the task", async || {
        Ok(match container.state().await {
            Ok(state) => state.status() == Status::Stopped,
            Err(error) => refused::<(), _>(Err(error))?.code == Code::NotFound,
        })
    })
    .await
}

/// Kills the shim of a container that is being created: as soon as it is there, or once it has made a process.
async fn kill_creating_shim(id: &str, later: bool) {
    let mark = format!("-id {id} ");
    let own = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    for _ in 0..400 {
        let shim = processes::descendants(own).into_iter().find(|process| {
            process.command.contains(&mark) && !process.command.ends_with("start") && process.state != 'Z'
        });
        if let Some(shim) = shim.filter(|shim| !later || !processes::descendants(shim.pid).is_empty()) {
            processes::kill(shim.pid);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

pub fn register(t: &mut Registry) {
    of_shims(t);
    of_containerd(t);
}

fn of_shims(t: &mut Registry) {
    t.add(
        "a running container whose shim is killed is cleaned up, and its exit is seen once",
        async |c| {
            let container = c.container().waiting().start().await?;
            kill_shim(&container)?;
            c.events()
                .wait_for(&container.id, "exit", |event| event.status == 137)
                .await?;
            cleaned_up(c, &container).await?;
            let events = c.events().of(&container.id);
            same!(
                events.iter().filter(|event| event.kind() == "exit").count(),
                1,
                "{events:?}"
            );
            Ok(())
        },
    );
    t.add("a created container whose shim is killed is cleaned up", async |c| {
        let container = c.container().waiting().create().await?;
        kill_shim(&container)?;
        cleaned_up(c, &container).await
    });
    t.add("a container with execs whose shim is killed is cleaned up", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "forks", "3"]).start().await?;
        exec.stdout.wait_for("ready").await?;
        let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
        kill_shim(&container)?;
        cleaned_up(c, &container).await?;
        c.eventually("all are gone", async || {
            Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
        })
        .await
    });
    t.add("a paused container whose shim is killed is cleaned up", async |c| {
        let container = c.container().waiting().start().await?;
        container.pause().await?;
        kill_shim(&container)?;
        cleaned_up(c, &container).await
    });
    t.add(
        "a container with a terminal whose shim is killed is cleaned up",
        async |c| {
            let container = c.container().waiting().terminal().stdin().start().await?;
            kill_shim(&container)?;
            cleaned_up(c, &container).await
        },
    );
    t.add("a stopped container whose shim is killed is cleaned up", async |c| {
        let container = c.container().waiting().start().await?;
        let shim = processes::shim_of(container.pid.get()).context("no shim")?;
        container.kill(9).await?;
        container.wait().await?;
        processes::kill(shim);
        cleaned_up(c, &container).await
    });
    t.add(
        "the same container can be made again after its shim was killed",
        async |c| {
            let container = c.container().waiting().start().await?;
            kill_shim(&container)?;
            cleaned_up(c, &container).await?;
            same!(c.run(&["echo", "again"]).await?.ok()?, "again\n");
            Ok(())
        },
    );
    t.add("waiting is answered when the shim is killed", async |c| {
        let container = c.container().waiting().start().await?;
        let wait = tokio::time::timeout(std::time::Duration::from_secs(10), container.wait());
        let (waited, killed) = tokio::join!(wait, async { kill_shim(&container) });
        killed?;
        // An exit code or an error: but an answer.
        waited.context("no answer")?.ok();
        cleaned_up(c, &container).await
    });
    t.add(
        "a shim that is killed at any moment of a create leaves nothing",
        async |c| {
            for later in [false, true, false, true] {
                let container = c.container().waiting().prepare().await?;
                let (created, ()) = tokio::join!(container.create(), kill_creating_shim(container.id(), later));
                // A shim that dies before containerd has reached it is told to nobody: containerd runs no `delete`.
                // What stays is its socket, dead, in the way of no one; the container's next shim takes its place.
                if let Err(error) = created
                    && format!("{error:#}").contains("connection refused")
                {
                    let container = container.create().await?;
                    container.kill(9).await?;
                    same!(container.wait().await?, 137);
                    same!(container.delete().await?, 137);
                }
            }
            Ok(())
        },
    )
    .differs("runc leaves cgroups and processes behind when its shim dies in the middle of a create");
}

fn of_containerd(t: &mut Registry) {
    t.add(
        "a container goes on while containerd is killed and started again",
        async |c| {
            let container = c.container().sh("while :; do echo x; sleep 0.05; done").start().await?;
            container.stdout.wait_for("x").await?;
            c.daemon.kill().await?;
            let now = container.stdout.text().len();
            c.eventually("it still writes", async || Ok(container.stdout.text().len() > now))
                .await?;
            c.daemon.start_again().await?;
            same!(container.status().await?, Status::Running);
            same!(container.sh("echo inside").await?.ok()?, "inside\n");
            container.kill(9).await?;
            same!(container.wait().await?, 137);
            same!(container.delete().await?, 137);
            Ok(())
        },
    )
    .own_containerd();
    t.add(
        "a container that ends while containerd is away tells its exit code afterwards",
        async |c| {
            let container = c.container().sh("read x; exit 7").stdin().start().await?;
            c.daemon.kill().await?;
            container.write("go\n").await?;
            let pid = container.pid.get();
            c.eventually("it ends", async || Ok(!processes::is_alive(pid))).await?;
            c.daemon.start_again().await?;
            // containerd 2.4 deletes what has ended by then, at its start; older ones keep it for their clients.
            match container.wait().await {
                Ok(code) => same!((code, container.delete().await?), (7, 7)),
                Err(error) => drop(refused::<(), _>(Err(error))?.with_code(Code::NotFound)?),
            }
            Ok(())
        },
    )
    .own_containerd();
    t.add(
        "a created container is still created after containerd's restart",
        async |c| {
            let container = c.container().args(&["echo", "later"]).create().await?;
            c.daemon.stop().await?;
            c.daemon.start_again().await?;
            same!(container.status().await?, Status::Created);
            container.start().await?;
            same!(container.output().await?.ok()?, "later\n");
            Ok(())
        },
    )
    .own_containerd();
    t.add(
        "a paused container is still paused after containerd's restart",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.pause().await?;
            c.daemon.stop().await?;
            c.daemon.start_again().await?;
            same!(container.status().await?, Status::Paused);
            container.resume().await?;
            same!(container.sh("echo awake").await?.ok()?, "awake\n");
            Ok(())
        },
    )
    .own_containerd();
    t.add("an exec goes on through containerd's restart", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "echo"]).stdin().start().await?;
        exec.write("before\n").await?;
        exec.stdout.wait_for("before").await?;
        c.daemon.kill().await?;
        c.daemon.start_again().await?;
        exec.write("after\n").await?;
        exec.stdout.wait_for("after").await?;
        exec.end_stdin().await?;
        same!(exec.wait().await?, 0);
        Ok(())
    })
    .own_containerd();
    t.add(
        "a container whose shim died while containerd was away is cleaned up at its start",
        async |c| {
            let container = c.container().waiting().start().await?;
            c.daemon.kill().await?;
            kill_shim(&container)?;
            c.daemon.start_again().await?;
            cleaned_up(c, &container).await
        },
    )
    .own_containerd();
}
