//! Filters of system calls: what the spec's profile denies, who is asked about calls, and recorded profiles.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::policy::{annotated, handler};
use crate::container::Builder;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

const DIFFERS: &str = "recording is nucleus' own";

/// The agent of the tests, on the host.
struct Agent {
    socket: String,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Agent {
    async fn start(c: &Ctx) -> Result<Self> {
        let socket = c.directory.join("agent").display().to_string();
        let mut command = Command::new(&c.tools.probe);
        command
            .args(["agent", &socket])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().context("start the agent")?;
        let out = process.stdout.take().context("the agent's output")?;
        let mut agent = Self {
            socket,
            lines: BufReader::new(out).lines(),
            _process: process,
        };
        same!(agent.line().await?, json!("ready"));
        Ok(agent)
    }

    async fn line(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(Duration::from_secs(60), self.lines.next_line()).await;
        let line = line
            .context("the agent was told nothing")??
            .context("the agent ended")?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

fn filtered<'a>(container: Builder<'a>, profile: &Value) -> Builder<'a> {
    container.spec(|spec| spec["linux"]["seccomp"] = profile.clone())
}

/// Asks the agent at `socket` about directories that are made.
fn asks(socket: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "for the agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]})
}

/// What an agent is told of a process, but for the version and the paths.
fn told(line: &Value) -> Result<Value> {
    let mut state = line["state"].clone();
    ensure!(
        state["ociVersion"].is_string() && state["state"]["ociVersion"].is_string(),
        "no version: {line}"
    );
    let inner = state["state"].as_object_mut().context("no container's state")?;
    inner.remove("ociVersion");
    ensure!(
        inner
            .remove("bundle")
            .is_some_and(|bundle| bundle.as_str().is_some_and(|path| path.starts_with('/'))),
        "no bundle: {line}"
    );
    state.as_object_mut().context("no state")?.remove("ociVersion");
    Ok(state)
}

pub fn register(t: &mut Registry) {
    t.add(
        "a profile's errno is what init and execs get, and nothing else is denied",
        async |c| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
            let script = "mkdir /tmp/d 2>&1 | grep -c 'No space left'; touch /tmp/f && ls /tmp";
            let init = filtered(c.container().sh(script), &profile).output().await?;
            same!(init.ok()?, "1\nf\n");
            let container = filtered(c.container().waiting(), &profile).start().await?;
            same!(container.sh(script).await?.ok()?, "1\nf\n");
            Ok(())
        },
    );

    t.add(
        "an agent is given the listener of init and of each exec, and asked about their calls",
        async |c| {
            let mut agent = Agent::start(c).await?;
            let container = c.container().waiting().spec(|spec| {
                spec["linux"]["seccomp"] = asks(&agent.socket);
                spec["annotations"] = json!({"example.com/a": "b"});
            });
            let container = container.start().await?;
            let (id, pid) = (container.id.clone(), container.pid.get());
            let state = |status: &str, process: &Value| {
                json!({"fds": ["seccompFd"], "pid": process, "metadata": "for the agent", "state": {
                "id": id, "status": status, "pid": pid, "annotations": {"example.com/a": "b"}}})
            };
            same!(told(&agent.line().await?)?, state("creating", &json!(pid)));
            let output = container.sh("mkdir /tmp/d && ls -d /tmp/d").await?;
            same!(output.ok()?, "/tmp/d\n");
            let line = agent.line().await?;
            let exec = line["state"]["pid"].clone();
            ensure!(exec != json!(pid), "an exec's pid is its own: {line}");
            same!(told(&line)?, state("running", &exec));
            // mkdir(2) on x86_64, mkdirat(2) elsewhere.
            let call = agent.line().await?;
            ensure!(call == json!({"call": 83}) || call == json!({"call": 34}), "{call}");
            Ok(())
        },
    );

    t.add("without its agent a container does not run", async |c| {
        let nobody = c.directory.join("nobody").display().to_string();
        let container = c
            .container()
            .sh("echo ran")
            .spec(|spec| spec["linux"]["seccomp"] = asks(&nobody));
        // runc asks the agent when it creates, we when the program is to start.
        let error = match container.create().await {
            Err(error) => error,
            Ok(container) => match container.start().await {
                Err(error) => error,
                Ok(()) => anyhow::bail!("it ran"),
            },
        };
        let text = format!("{error:#}");
        ensure!(text.contains("agent"), "{text}");
        Ok(()) as Result<()>
    });

    t.add(
        "a recorded profile is all that the workload needs, and no more",
        async |c| {
            let directory = c.directory.join("recorded");
            std::fs::create_dir_all(&directory)?;
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
            let options = handler(&format!("seccomp.record_to = '{}'\n", directory.display()));
            let record = json!({"nucleus.dev/seccomp": "record"});
            let script = "mkdir /tmp/d && echo x > /tmp/d/f && cat /tmp/d/f";
            let container = annotated(c.container().waiting(), &record)
                .options(options)
                .start()
                .await?;
            same!(container.sh(script).await?.ok()?, "x\n");
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            let file = directory.join(format!("{}-{}.json", c.namespace, container.id));
            let profile: Value = serde_json::from_slice(&std::fs::read(&file).context("no profile was written")?)?;
            let names = profile["syscalls"][0]["names"].as_array().context("no names")?;
            ensure!(names.contains(&json!("execve")), "{profile}");
            ensure!(names.len() > 10 && names.len() < 80, "{} calls: {profile}", names.len());

            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["linux"]["seccomp"] = profile.clone());
            let container = container.start().await?;
            same!(container.sh(script).await?.ok()?, "x\n", "under the recorded profile");
            let outside = container.sh("chmod 700 /tmp/d/f && echo changed").await?;
            ensure!(
                !outside.stdout.contains("changed"),
                "a call outside the profile: {outside:?}"
            );
            ensure!(outside.stderr.contains("not permitted"), "{outside:?}");

            let refusal = annotated(c.container().waiting(), &record).create().await;
            refused(refusal)?.saying("seccomp.record_to is empty")?;
            Ok(())
        },
    )
    .differs(DIFFERS);
}
