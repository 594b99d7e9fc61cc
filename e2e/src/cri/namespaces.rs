//! Which namespaces a container shares, and with whom.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{processes, same};

use super::pods::{Cri, FOREVER, PodContainer, plain};

/// The same namespace options for a pod and its containers, as kubelet has them.
fn options(config: &mut Value, options: &Value) {
    config["linux"]["security_context"]["namespace_options"] = options.clone();
}

/// What a process of the container has for a namespace of that kind.
pub async fn namespace(container: &PodContainer<'_, '_>, kind: &str) -> Result<String> {
    let output = container.sh(&format!("readlink /proc/self/ns/{kind}")).await?;
    Ok(output.ok()?.to_owned())
}

pub async fn target_processes(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let own = |config: &mut Value| {
        // NamespaceMode CONTAINER
        config["linux"]["security_context"] = json!({"namespace_options": {"pid": 1}});
    };
    let first = pod.start(&["sleep", "7777"], own).await?;
    let debug = pod
        .start(&FOREVER, |config| {
            // NamespaceMode TARGET
            config["linux"]["security_context"] = json!({"namespace_options": {"pid": 3, "target_id": first.id}});
        })
        .await?;
    same!(
        debug.sh("cat /proc/1/cmdline | tr '\\0' ' '").await?.ok()?,
        "sleep 7777"
    );
    debug.stop(0).await?;
    ensure!(
        first.inspect().await?["status"]["state"] == "CONTAINER_RUNNING",
        "the target ended as well"
    );
    pod.remove().await
}

pub async fn of_host(cri: &Cri<'_>) -> Result<()> {
    let daemon = cri.daemon.pid().context("containerd does not run")?;
    // NamespaceMode NODE
    let node = json!({"network": 2, "pid": 2, "ipc": 2});
    let pod = cri.pod(|config| options(config, &node)).await?;
    let container = pod.start(&FOREVER, |config| options(config, &node)).await?;
    for kind in ["net", "pid", "ipc", "uts"] {
        let link = std::fs::read_link(format!("/proc/{daemon}/ns/{kind}")).context("read containerd's namespace")?;
        same!(namespace(&container, kind).await?, link.display().to_string());
    }
    pod.remove().await
}

/// Asks for the pod's PID namespace in a pod that was made to share none.
pub async fn no_host_processes(cri: &Cri<'_>) -> Result<()> {
    let daemon = cri.daemon.pid().context("containerd does not run")?;
    // NamespaceMode CONTAINER, then POD
    let pod = cri.pod(|config| options(config, &json!({"pid": 1}))).await?;
    let container = pod
        .start(&FOREVER, |config| options(config, &json!({"pid": 0})))
        .await?;
    let host = std::fs::read_link(format!("/proc/{daemon}/ns/pid")).context("read containerd's namespace")?;
    ensure!(
        namespace(&container, "pid").await? != host.display().to_string(),
        "it sees the host's processes"
    );
    pod.remove().await
}

/// A process of the host's that waits to be seen, by a number that no other has.
struct Canary {
    child: tokio::process::Child,
    number: String,
}

impl Canary {
    fn start() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let number = format!("31{:07}{count}", std::process::id());
        let mut command = Command::new("sleep");
        let child = command.arg(&number).kill_on_drop(true).spawn();
        let child = child.context("start a canary")?;
        Ok(Self { child, number })
    }
}

/// A System V segment of the host's.
struct Segment(String);

impl Segment {
    fn make() -> Result<Self> {
        let output = std::process::Command::new("ipcmk")
            .args(["--shmem", "4096"])
            .output()
            .context("run ipcmk")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = text.split_whitespace().last();
        let id = id.filter(|id| output.status.success() && id.parse::<u32>().is_ok());
        Ok(Self(id.with_context(|| format!("ipcmk said {text:?}"))?.to_owned()))
    }

    /// Its key, as the kernel writes it, by which nobody else's can be meant.
    fn key(&self) -> Result<String> {
        let text = std::fs::read_to_string("/proc/sysvipc/shm").context("read /proc/sysvipc/shm")?;
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields.get(1) == Some(&self.0.as_str()));
        Ok(line.context("the segment is not there")?[0].to_owned())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let removed = std::process::Command::new("ipcrm")
            .args(["--shmem-id", &self.0])
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("the segment {} is left", self.0);
        }
    }
}

/// The names in a `/proc/…/net/dev`.
fn interfaces(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

pub async fn things_of_host(cri: &Cri<'_>) -> Result<()> {
    let daemon = cri.daemon.pid().context("containerd does not run")?;
    let segment = Segment::make()?;
    let key = segment.key()?;
    let mut canary = Canary::start()?;
    let pid = canary.child.id().context("the canary has ended")?;
    let looks = [
        format!("(tr '\\0' ' ' < /proc/{pid}/cmdline) 2>/dev/null; true"),
        // Not the shell that has it in its script.
        format!("pgrep -f '^sleep {}' | wc -l", canary.number),
        format!("grep -c '^ *{key} ' /proc/sysvipc/shm; true"),
    ];
    let line = format!("sleep {}", canary.number);
    // NamespaceMode POD and CONTAINER, then NODE
    let own = json!({"network": 0, "pid": 1, "ipc": 0});
    let node = json!({"network": 2, "pid": 2, "ipc": 2});
    for (wanted, found) in [(own, ["", "0", "0"]), (node, [&line, "1", "1"])] {
        let shared = found[1] == "1";
        let pod = cri.pod(|config| options(config, &wanted)).await?;
        let container = pod.start(&FOREVER, |config| options(config, &wanted)).await?;
        for (look, found) in looks.iter().zip(found) {
            same!(container.sh(look).await?.stdout, found, "{look}, shared = {shared}");
        }
        let inside = interfaces(container.sh("cat /proc/net/dev").await?.ok()?);
        let outside = interfaces(&processes::text(daemon, "net/dev"));
        ensure!(outside.contains("cni0"), "containerd's network is {outside:?}");
        same!(inside == outside, shared, "inside are {inside:?}");
        let killed = container.sh(&format!("kill -TERM {pid}")).await?;
        same!(killed.code == 0, shared, "{killed:?}");
        pod.remove().await?;
    }
    let status = tokio::time::timeout(Duration::from_secs(10), canary.child.wait()).await;
    let status = status.context("the canary lives")?.context("wait for the canary")?;
    same!(status.signal(), Some(15));
    Ok(())
}
