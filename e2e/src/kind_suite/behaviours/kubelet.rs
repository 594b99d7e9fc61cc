//! What kubelet makes of a container's end, of its streams and of a pod's namespaces, and what it keeps from the
//! runtime.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::super::engine::run;
use super::super::store::BUSYBOX;
use super::super::workload::{LIMIT, Space};
use super::{Behaviour, common, ours};
use crate::pty::Terminal;

pub fn all() -> Vec<Behaviour> {
    vec![
        common(
            "pods",
            "a container's last words are told, out of its file or its log",
            |space| Box::pin(last_words(space)),
        ),
        common("pods", "kubectl attach reaches a container and its terminal", |space| {
            Box::pin(attach(space))
        }),
        common("pods", "a pod can have its node's namespaces", |space| {
            Box::pin(of_node(space))
        }),
        common("pods", "a part of a volume that leads out of it is refused", |space| {
            Box::pin(hostile_part(space))
        }),
        ours("pods", "procMount: Unmasked holds in a user namespace", |space| {
            Box::pin(unmasked(space))
        }),
    ]
}

fn container(name: &str, script: &str, more: Value) -> Value {
    let mut container =
        json!({"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script]});
    if let (Some(all), Value::Object(more)) = (container.as_object_mut(), more) {
        all.extend(more);
    }
    container
}

/// The state of a container of that name, where it has one.
fn state(pod: &Pod, name: &str) -> Option<ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)?.state.clone()
}

async fn last_words(space: &Space<'_>) -> Result<()> {
    let fall_back = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let more = json!({
        "restartPolicy": "Never",
        "main": {"terminationMessagePath": "/tmp/last"},
        "beside": [
            container("logged", "echo no database; exit 4", fall_back.clone()),
            container("both", "echo logged; echo written > /dev/termination-log; exit 5", fall_back.clone()),
            container("well", "echo all is well", fall_back),
            container("silent", "echo logged; exit 6", json!({})),
        ],
    });
    space
        .pod("words", "echo out of a file > /tmp/last; exit 3", more)
        .await?;
    let pod = space.until_ended("words").await?;
    for (name, code, message) in [
        ("main", 3, "out of a file\n"),
        ("logged", 4, "no database\n"),
        ("both", 5, "written\n"),
        ("well", 0, ""),
        ("silent", 6, ""),
    ] {
        let ended = state(&pod, name).and_then(|state| state.terminated);
        let ended = ended.with_context(|| format!("{name} has not ended"))?;
        let said = ended.message.unwrap_or_default();
        ensure!(
            (ended.exit_code, said.as_str()) == (code, message),
            "{name} ended with {}, {said:?}",
            ended.exit_code
        );
    }
    Ok(())
}

async fn attach(space: &Space<'_>) -> Result<()> {
    let more = json!({
        "main": {"stdin": true},
        "beside": [{"name": "shell", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh"],
            "stdin": true, "tty": true}],
    });
    let script = "while read line; do echo \"got $line\"; done";
    space.pod("listens", script, more).await?;
    space.until_ready("listens").await?;
    // Who goes away may come again.
    for word in ["hello", "again"] {
        let mut attach = space.kubectl(&["attach", "--quiet", "-i", "listens", "-c", "main"]);
        attach.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut attach = attach.spawn().context("run kubectl attach")?;
        let mut input = attach.stdin.take().context("kubectl has no input")?;
        let text = format!("{word}\n");
        input
            .write_all(text.as_bytes())
            .await
            .context("write to kubectl attach")?;
        let mut lines = BufReader::new(attach.stdout.take().context("kubectl has no output")?).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        let line = line
            .context("kubectl attach says nothing")?
            .context("read from kubectl attach")?;
        ensure!(line == Some(format!("got {word}")), "it said {line:?}");
        attach.kill().await.context("end kubectl attach")?;
    }
    let attach = space.kubectl(&["attach", "--quiet", "-i", "-t", "listens", "-c", "shell"]);
    let mut terminal = Terminal::start_sized(attach, 40, 100)?;
    terminal.type_text("[ -t 0 ] && echo terminal $((6 * 7))\r")?;
    terminal.wait_for("terminal 42\r\n").await?;
    terminal.child.kill().await.context("end kubectl attach")?;
    let log = run(&mut space.kubectl(&["logs", "listens", "--container", "main"])).await?;
    ensure!(log == "got hello\ngot again\n", "its log is {log:?}");
    Ok(())
}

async fn of_node(space: &Space<'_>) -> Result<()> {
    // To read the links of the node's first process.
    let more = json!({
        "hostPID": true, "hostIPC": true, "hostNetwork": true, "restartPolicy": "Never",
        "main": {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
    });
    let script = "for kind in ipc net pid mnt; do link=$(readlink /proc/1/ns/$kind) || exit 1; \
                  [ \"$link\" = \"$(readlink /proc/self/ns/$kind)\" ] && echo $kind; done; cat /proc/1/comm; hostname";
    space.pod("of-node", script, more).await?;
    space.until_ended("of-node").await?;
    let log = space.log("of-node").await?;
    let node = space.cluster.nodes().swap_remove(0);
    ensure!(log == format!("ipc\nnet\npid\nsystemd\n{node}\n"), "it wrote {log:?}");
    Ok(())
}

async fn hostile_part(space: &Space<'_>) -> Result<()> {
    let volume = json!({"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]});
    let more = json!({
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "initContainers": [container("first", "ln -s /etc /scratch/out", volume)],
        "main": {"volumeMounts": [{"name": "scratch", "mountPath": "/part", "subPath": "out"}]},
    });
    space.pod("part", "ls /part; exec sleep 1000", more).await?;
    let waiting = |pod: &Pod| state(pod, "main").and_then(|state| state.waiting);
    let refused =
        |pod: &Pod| waiting(pod).is_some_and(|waiting| waiting.reason.as_deref() == Some("CreateContainerConfigError"));
    let pod = space.until("part", "to be refused", refused).await?;
    let message = waiting(&pod).and_then(|waiting| waiting.message).unwrap_or_default();
    ensure!(
        message.contains("failed to prepare subPath"),
        "the message is {message:?}"
    );
    Ok(())
}

async fn unmasked(space: &Space<'_>) -> Result<()> {
    let script = "grep -c ' /proc/keys ' /proc/mounts; grep -c ' /proc/' /proc/mounts; true";
    let more = json!({
        "hostUsers": false, "restartPolicy": "Never",
        "main": {"securityContext": {"procMount": "Unmasked"}},
        "beside": [container("masked", script, json!({"securityContext": {"procMount": "Default"}}))],
    });
    space.pod("unmasked", script, more).await?;
    space.until_ended("unmasked").await?;
    let logs = async |name: &str| run(&mut space.kubectl(&["logs", "unmasked", "--container", name])).await;
    let [open, masked] = [logs("main").await?, logs("masked").await?];
    ensure!(open == "0\n0\n", "what is mounted below /proc: {open:?}");
    ensure!(
        masked.starts_with("1\n"),
        "what is mounted below /proc by default: {masked:?}"
    );
    Ok(())
}
