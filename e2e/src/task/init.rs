//! `init = true`: a process of nucleus is PID 1, the workload its child.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::policy::annotated;
use crate::container::Builder;
use crate::context::Ctx;
use crate::harness::Registry;
use crate::{processes, same, spec};

const DIFFERS: &str = "runc has no init of its own";

fn with_init(c: &Ctx) -> Builder<'_> {
    annotated(c.container(), &json!({"nucleus.dev/init": "true"}))
}

pub fn register(t: &mut Registry) {
    t.add(
        "it ends with the workload's status, and with what is said of a missing program",
        async |c| {
            same!(with_init(c).sh("echo out; exit 7").output().await?.code, 7);
            same!(with_init(c).sh("kill -9 $$").output().await?.code, 137);
            let error = with_init(c).args(&["/no/such/program"]).create().await;
            crate::expect::refused(error)?.saying("/no/such/program")?;
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);

    t.add("signals reach a workload that would ignore them as PID 1", async |c| {
        let container = with_init(c).waiting().start().await?;
        container.kill(15).await?;
        same!(container.wait().await?, 143);
        let script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
        let container = with_init(c).sh(script).start().await?;
        container.stdout.wait_for("ready").await?;
        container.kill(10).await?;
        let output = container.output().await?;
        same!((output.code, output.stdout.as_str()), (3, "ready\ngot\n"));
        Ok(()) as Result<()>
    })
    .differs(DIFFERS)
    .within(120);

    t.add("orphans are reaped", async |c| {
        // The subshell's child outlives it, and ends when nobody waits for it.
        let orphan = "(sh -c 'sleep 0.2; exit 0' &) ; exit 0";
        let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        let without = c.container().waiting().start().await?;
        same!(without.sh(orphan).await?.code, 0);
        c.within(60, "a zombie stays where the workload is PID 1", async || {
            Ok(without.sh(zombies).await?.stdout.trim() != "0")
        })
        .await?;
        let with = with_init(c).waiting().start().await?;
        for _ in 0..5 {
            same!(with.sh(orphan).await?.code, 0);
        }
        c.within(
            60,
            "only init, the workload and the shell that looks are there",
            async || {
                let count = with.sh("ls -d /proc/[0-9]* | wc -l").await?.stdout;
                Ok(count.trim().parse::<u32>()? <= 5 && with.sh(zombies).await?.stdout.trim() == "0")
            },
        )
        .await
    })
    .differs(DIFFERS)
    .within(120);

    t.add(
        "it has no files, no capability but CAP_KILL, and nothing to look at",
        async |c| {
            let container = with_init(c).waiting().spec(|spec| {
                spec["process"]["noNewPrivileges"] = json!(false);
            });
            let container = container.start().await?;
            let own = container.pid.get();
            let workload = container
                .sh("cat /proc/2/comm; grep CapEff /proc/2/status")
                .await?
                .stdout;
            ensure!(workload.starts_with("probe\n"), "{workload}");
            ensure!(
                !workload.contains("0000000000000020"),
                "the workload has its capabilities: {workload}"
            );
            let status = processes::text(own, "status");
            for line in [
                "CapEff:\t0000000000000020",
                "CapPrm:\t0000000000000020",
                "CapBnd:\t0000000000000000",
                "NoNewPrivs:\t1",
            ] {
                ensure!(status.contains(line), "{line}: {status}");
            }
            same!(std::fs::read_dir(format!("/proc/{own}/fd"))?.count(), 0, "its files");
            for attack in [
                "cat /proc/1/environ",
                "ls /proc/1/fd",
                "cat /proc/1/maps",
                "ls -l /proc/1/exe | grep nucleus",
            ] {
                ensure!(
                    container.sh(&format!("{attack} 2>/dev/null | grep -q .")).await?.code != 0,
                    "{attack}"
                );
            }
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);

    t.add(
        "it works with a terminal, a seccomp profile, another user and the pod's PID namespace",
        async |c| {
            let container = with_init(c)
                .terminal()
                .sh("echo to the terminal > /dev/tty; exit 4")
                .start()
                .await?;
            let output = container.output().await?;
            ensure!(
                output.code == 4 && output.stdout.contains("to the terminal"),
                "{output:?}"
            );
            let profile = |spec: &mut Value| {
                spec["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
                });
                spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                spec["process"]["capabilities"] = json!({});
            };
            let container = with_init(c).waiting().spec(profile).start().await?;
            ensure!(
                processes::text(container.pid.get(), "status").contains("Seccomp:\t2"),
                "init has no filter"
            );
            container.kill(15).await?;
            same!(container.wait().await?, 143);
            let pod = c.container().waiting().start().await?;
            let path = format!("/proc/{}/ns/pid", pod.pid.get());
            let member = with_init(c).sh("(sleep 0.1 &); sleep 0.3; exit 6");
            let member = member.spec(|spec| spec::with_namespace_path(spec, "pid", &path));
            same!(member.output().await?.code, 6);
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);
}
