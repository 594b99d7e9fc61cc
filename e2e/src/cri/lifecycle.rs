//! How containers and pods run and end, and what happens to them when containerd or their shim does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::context::Runtime;
use crate::{processes, same};

use super::pods::{Cri, FOREVER, plain};

pub async fn side_by_side(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let inside = pod.start(&FOREVER, plain).await?;
    let native = Cri::beside(cri, Runtime::Nucleus);
    let other = native.pod(plain).await?;
    let outside = other.start(&FOREVER, plain).await?;
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    same!(outside.sh("uname -r").await?.ok()?, host);
    ensure!(inside.sh("uname -r").await?.ok()? != host, "it is the host's kernel");
    other.remove().await?;
    pod.remove().await
}

pub async fn exec_timeout(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let output = container.exec(1, &["sleep", "4321"]).await?;
    ensure!(output.code != 0, "it ended well: {output:?}");
    cri.eventually("what timed out is gone", async || {
        Ok(container.sh("pgrep -f 'sleep 432[1]' | wc -l").await?.ok()? == "0")
    })
    .await?;
    pod.remove().await
}

pub async fn oom_killed(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let limited = |config: &mut Value| {
        config["linux"]["resources"] = json!({"memory_limit_in_bytes": 32 << 20});
    };
    let container = pod.start(&["probe", "memory", "200"], limited).await?;
    let status = container.ended().await?;
    same!(status["reason"], json!("OOMKilled"));
    same!(status["exitCode"], json!(137));
    pod.remove().await
}

pub async fn graceful_stop(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    cri.eventually("it listens", async || Ok(container.log()?.contains("ready")))
        .await?;
    container.stop(200).await?;
    same!(container.ended().await?["exitCode"], json!(3));
    pod.remove().await
}

pub async fn forced_stop(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    cri.eventually("it listens", async || Ok(container.log()?.contains("ready")))
        .await?;
    let begun = Instant::now();
    container.stop(2).await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(2),
        "it had only {:?}",
        begun.elapsed()
    );
    same!(container.ended().await?["exitCode"], json!(137));
    pod.remove().await
}

pub async fn restarts(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let steady = pod.start(&FOREVER, plain).await?;
    for attempt in 0..5 {
        let script = format!("exit {attempt}");
        let container = pod
            .start(&["sh", "-c", &script], |config| {
                config["metadata"] = json!({"name": "again", "attempt": attempt});
            })
            .await?;
        let status = container.ended().await?;
        same!(status["exitCode"], json!(attempt));
        same!(
            status["reason"],
            json!(if attempt == 0 { "Completed" } else { "Error" })
        );
        container.remove().await?;
    }
    ensure!(pod.is_ready().await?, "the pod is not ready any more");
    same!(steady.sh("echo here").await?.ok()?, "here");
    pod.remove().await
}

pub async fn containerd_restart(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "while :; do echo line; sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    let before = container.inspect().await?["info"]["pid"].clone();
    cri.daemon.kill().await?;
    cri.daemon.start_again().await?;
    cri.eventually("CRI answers", async || Ok(cri.crictl(&["pods"]).await?.code == 0))
        .await?;
    ensure!(pod.is_ready().await?, "the pod is not ready any more");
    same!(container.inspect().await?["info"]["pid"], before);
    same!(container.sh("echo here").await?.ok()?, "here");
    let lines = container.log()?.lines().count();
    cri.eventually("its log goes on", async || Ok(container.log()?.lines().count() > lines))
        .await?;
    container.stop(0).await?;
    same!(container.ended().await?["exitCode"], json!(137));
    pod.remove().await
}

pub async fn shim_killed(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let pid = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    let shim = processes::shim_of(u32::try_from(pid)?).context("no shim")?;
    processes::kill(shim);
    container.ended().await?;
    cri.eventually("the pod is not ready", async || Ok(!pod.is_ready().await?))
        .await?;
    pod.remove().await
}
