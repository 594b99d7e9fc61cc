//! What containers find in their pod, whoever makes its sandbox: containerd by a pause container, or the shim.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{processes, same};

use super::namespaces::namespace;
use super::pods::{Cri, FOREVER, Pod, plain};

pub async fn shared(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(|config| config["hostname"] = json!("shop")).await?;
    let one = pod.start(&FOREVER, plain).await?;
    let other = pod.start(&FOREVER, plain).await?;
    one.sh("echo hello > /dev/shm/word").await?.ok()?;
    same!(other.sh("cat /dev/shm/word").await?.ok()?, "hello");
    same!(
        other.sh("grep ' /dev/shm ' /proc/mounts | cut -d' ' -f3").await?.ok()?,
        "tmpfs"
    );
    same!(other.sh("stat -c %a /dev/shm").await?.ok()?, "1777");
    for container in [&one, &other] {
        same!(container.sh("hostname; cat /etc/hostname").await?.ok()?, "shop\nshop");
    }
    for kind in ["ipc", "uts", "net", "pid"] {
        same!(namespace(&one, kind).await?, namespace(&other, kind).await?, "{kind}");
    }
    ensure!(
        namespace(&one, "mnt").await? != namespace(&other, "mnt").await?,
        "one root"
    );
    pod.remove().await
}

pub async fn names(cri: &Cri<'_>) -> Result<()> {
    let pod = cri
        .pod(|config| {
            config["dns_config"] =
                json!({"servers": ["192.0.2.1", "192.0.2.2"], "searches": ["shop.svc", "svc"], "options": ["ndots:5"]});
        })
        .await?;
    let container = pod.start(&FOREVER, plain).await?;
    same!(
        container.sh("cat /etc/resolv.conf").await?.ok()?,
        "search shop.svc svc\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5"
    );
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    same!(container.sh("cat /etc/hosts").await?.ok()?, hosts.trim_end());
    container.sh("echo '192.0.2.3 db' >> /etc/hosts").await?.ok()?;
    let sealed = pod
        .start(&FOREVER, |config| {
            config["linux"]["security_context"]["readonly_rootfs"] = json!(true);
        })
        .await?;
    same!(sealed.sh("tail -n 1 /etc/hosts").await?.ok()?, "192.0.2.3 db");
    let written = sealed.sh("echo >> /etc/resolv.conf").await?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    // A file of one's own goes before the pod's.
    let file = cri.directory.join("hosts");
    std::fs::write(&file, "192.0.2.9 own\n").context("write a hosts file")?;
    let own = pod
        .start(&FOREVER, |config| {
            config["mounts"] = json!([{"host_path": file, "container_path": "/etc/hosts"}]);
        })
        .await?;
    same!(own.sh("cat /etc/hosts").await?.ok()?, "192.0.2.9 own");
    pod.remove().await
}

pub async fn reaped(cri: &Cri<'_>) -> Result<()> {
    const ZOMBIES: &str = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    const ORPHANS: &str = "pgrep -f 'sleep 543[2]' | wc -l";
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let other = pod.start(&FOREVER, plain).await?;
    // The shell ends at once: its children are left to the pod's first process.
    container
        .sh("for i in 1 2 3; do sleep 5432 >/dev/null 2>&1 </dev/null & done")
        .await?
        .ok()?;
    same!(other.sh(ORPHANS).await?.ok()?, "3");
    other.sh("kill -9 $(pgrep -f 'sleep 543[2]')").await?.ok()?;
    cri.eventually("the orphans were reaped", async || {
        Ok(other.sh(ORPHANS).await?.ok()? == "0" && other.sh(ZOMBIES).await?.ok()? == "0")
    })
    .await?;
    ensure!(pod.is_ready().await?, "the pod is not ready any more");
    pod.remove().await
}

pub async fn settings(cri: &Cri<'_>) -> Result<()> {
    let pod = cri
        .pod(|config| {
            config["linux"]["sysctls"] =
                json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "4000 5000"});
        })
        .await?;
    let container = pod.start(&FOREVER, plain).await?;
    let read = async |file: &str| {
        let output = container.sh(&format!("cat /proc/sys/{file} | tr '\\t' ' '")).await?;
        anyhow::Ok(output.ok()?.to_owned())
    };
    same!(read("kernel/shm_rmid_forced").await?, "1");
    same!(read("net/ipv4/ip_local_port_range").await?, "4000 5000");
    if cri.is_containerd_2() {
        same!(read("net/ipv4/ip_unprivileged_port_start").await?, "0");
        same!(read("net/ipv4/ping_group_range").await?, "0 2147483647");
    }
    pod.remove().await
}

/// What `crictl inspectp` says of the sandbox's process.
async fn pid_of(cri: &Cri<'_>, pod: &Pod<'_, '_>) -> Result<u32> {
    let told = cri.crictl(&["inspectp", "--output", "json", &pod.id]).await?.json()?;
    let pid = told["info"]["pid"]
        .as_u64()
        .with_context(|| format!("no pid in {told}"))?;
    u32::try_from(pid).context("a strange pid")
}

pub async fn first_process_killed(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    ensure!(pod.is_ready().await?, "the pod is not ready");
    processes::kill(pid_of(cri, &pod).await?);
    cri.eventually("the pod is not ready", async || Ok(!pod.is_ready().await?))
        .await?;
    // The first of its PID namespace: all others end with it.
    same!(container.ended().await?["exitCode"], json!(137));
    pod.remove().await
}

/// There is no pause container, and what is there instead has nothing to be taken for.
pub async fn own_process(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let pid = pid_of(cri, &pod).await?;
    let init = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    same!(processes::shim_of(pid), processes::shim_of(u32::try_from(init)?));
    let status = processes::text(pid, "status");
    for (line, value) in [
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Uid", "65535"),
    ] {
        let found = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.strip_prefix(":\t"));
        ensure!(
            found.is_some_and(|found| found.starts_with(value)),
            "{line} of it is {found:?}"
        );
    }
    same!(processes::text(pid, "mountinfo").lines().count(), 1, "its mounts");
    // From inside: its name, and nothing else of it.
    let line = container.sh("cat /proc/1/cmdline | tr '\\0' ' '").await?;
    same!(line.ok()?.split(' ').nth(1), Some("pause"));
    for look in ["cat /proc/1/environ", "ls /proc/1/root/"] {
        let looked = container.sh(look).await?;
        ensure!(looked.stderr.contains("Permission denied"), "{looked:?}");
    }
    let killed = container.sh("kill -9 1; kill -15 1; sleep 1; echo on").await?;
    same!(killed.ok()?, "on");
    ensure!(pod.is_ready().await?, "a container has ended its pod");
    pod.remove().await
}

/// A handler that asks for both.
pub async fn no_sentry(cri: &Cri<'_>) -> Result<()> {
    let words = "runtime = \"gvisor\" cannot be had with sandboxer = \"shim\"";
    let error = match cri.pod_of("gvisor-sandboxed", plain).await {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    ensure!(error.replace('\\', "").contains(words), "the error is {error:?}");
    Ok(())
}
