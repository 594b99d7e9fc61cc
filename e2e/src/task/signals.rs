//! Kill, in all its forms.

use anyhow::{Context as _, Result};
use containerd_client::tonic::Code;
use containerd_client::types::v1::Status;
use serde_json::Value;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same, spec};

pub fn register(t: &mut Registry) {
    t.add("a signal reaches a handler", async |c| {
        let script = "trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
        let container = c.container().sh(script).start().await?;
        container.stdout.wait_for("ready").await?;
        container.kill(15).await?;
        let output = container.output().await?;
        same!((output.code, output.stdout.as_str()), (3, "ready\nstopping\n"));
        Ok(())
    });
    t.add(
        "an init without a handler survives SIGTERM and not SIGKILL",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.kill(15).await?;
            // The signal has been handled once a later one was: SIGUSR1 is ignored as well.
            container.kill(10).await?;
            same!(container.status().await?, Status::Running);
            container.kill(9).await?;
            same!(container.wait().await?, 137);
            Ok(())
        },
    );
    t.add("a signal to an exec leaves init alone", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        exec.kill(15).await?;
        same!(exec.wait().await?, 143);
        same!(container.status().await?, Status::Running);
        Ok(())
    });
    t.add("kill of a task that has ended is refused as not found", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        refused(container.kill(9).await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("kill of an exec that has ended is refused as not found", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).start().await?;
        exec.wait().await?;
        refused(exec.kill(9).await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("kill of an exec that was not started is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).create().await?;
        refused(exec.kill(9).await)?.with_code(Code::FailedPrecondition)?;
        Ok(())
    });
    t.add("kill of an unknown exec is refused as not found", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).create().await?;
        exec.delete().await?;
        refused(exec.kill(9).await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("a signal's number that does not exist is refused", async |c| {
        let container = c.container().waiting().start().await?;
        refused(container.kill(99).await)?;
        same!(container.status().await?, Status::Running);
        Ok(())
    });
    t.add("kill of all reaches every process of the container", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "forks", "3"]).start().await?;
        exec.stdout.wait_for("ready").await?;
        let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
        same!(pids.len(), 5);
        container.kill_all(9).await?;
        same!((container.wait().await?, exec.wait().await?), (137, 137));
        c.eventually("all are gone", async || {
            Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
        })
        .await
    });
    t.add(
        "kill of all reaches everything where the PID namespace is the host's",
        async |c| {
            let container = c.container().args(&["probe", "forks", "3"]);
            let container = container
                .spec(|spec| spec::without_namespace(spec, "pid"))
                .start()
                .await?;
            container.stdout.wait_for("ready").await?;
            let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
            same!(pids.len(), 4);
            container.kill_all(9).await?;
            same!(container.wait().await?, 137);
            c.eventually("all are gone", async || {
                Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
            })
            .await
        },
    );
    t.add(
        "what is left of a container in the host's PID namespace ends with its init",
        async |c| {
            let container = c.container().sh("probe forks 2 & read x").stdin();
            let container = container
                .spec(|spec| spec::without_namespace(spec, "pid"))
                .start()
                .await?;
            container.stdout.wait_for("ready").await?;
            let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
            same!(pids.len(), 4);
            container.end_stdin().await?;
            container.wait().await?;
            c.eventually("all are gone", async || {
                Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
            })
            .await
        },
    );
    t.add("a program begins with no signal blocked or ignored", async |c| {
        let seen = c.probe(|_| ()).await?;
        no_signal_blocked_or_ignored(&seen)
    });
    t.add("an exec begins with no signal blocked or ignored", async |c| {
        let container = c.container().waiting().start().await?;
        let seen = container.exec(&["probe"]).output().await?.json()?;
        no_signal_blocked_or_ignored(&seen)
    });
    t.add(
        "a container's signal to every process does not leave the container",
        async |c| {
            let bystander = c.container().waiting().start().await?;
            let container = c.container().waiting().start().await?;
            container.sh("kill -9 -1").await?;
            same!(container.status().await?, Status::Running);
            same!(bystander.status().await?, Status::Running);
            same!(bystander.sh("echo unharmed").await?.ok()?, "unharmed\n");
            same!(container.sh("echo unharmed").await?.ok()?, "unharmed\n");
            Ok(())
        },
    );
    t.add(
        "a signal to the process group stays with the program that sends it",
        async |c| {
            let container = c.container().waiting().start().await?;
            same!(container.sh("kill -9 0").await?.code, 137);
            same!(container.sh("echo alive").await?.ok()?, "alive\n");
            Ok(())
        },
    );
    t.add("init can be stopped and continued", async |c| {
        let container = c.container().sh("while :; do echo x; sleep 0.1; done").start().await?;
        container.stdout.wait_for("x").await?;
        container.kill(19).await?;
        let pid = container.pid.get();
        c.eventually("it is stopped", async || {
            Ok(processes::read(pid).is_some_and(|one| one.state == 'T'))
        })
        .await?;
        container.kill(18).await?;
        c.eventually("it goes on", async || {
            Ok(processes::read(pid).is_some_and(|one| one.state != 'T'))
        })
        .await
    });
}

fn no_signal_blocked_or_ignored(seen: &Value) -> Result<()> {
    same!(seen["status"]["SigBlk"], "0000000000000000");
    let mask = |text: &str| u64::from_str_radix(text, 16).context("a mask of signals");
    let ignored = mask(seen["status"]["SigIgn"].as_str().unwrap_or_default())?;
    // SIGPIPE the probe's own runtime ignores, as every Rust program does. What this very process was started with, and
    // with it containerd, is nobody's fault.
    let own = processes::text(std::process::id(), "status");
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"))
        .unwrap_or_default();
    same!(ignored & !mask(own)? & !(1 << (13 - 1)), 0);
    Ok(())
}
