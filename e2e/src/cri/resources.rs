//! What containers may use, what they do use, and what a handler says it can do.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::same;

use super::pods::{Cri, FOREVER, plain};

pub async fn update(cri: &Cri<'_>) -> Result<()> {
    const LIMIT: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let pod = cri.pod(plain).await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["linux"]["resources"] =
                json!({"memory_limit_in_bytes": 64 << 20, "cpu_period": 100_000, "cpu_quota": 50_000});
        })
        .await?;
    same!(container.sh(LIMIT).await?.ok()?, (64 << 20).to_string());
    for mebibytes in [128_u64, 32] {
        let bytes = (mebibytes << 20).to_string();
        let output = cri.crictl(&["update", "--memory", &bytes, &container.id]).await?;
        output.ok()?;
        same!(container.sh(LIMIT).await?.ok()?, bytes);
    }
    pod.remove().await
}

pub async fn statistics(cri: &Cri<'_>) -> Result<()> {
    let pod = cri
        .pod(|config| config["linux"]["cgroup_parent"] = json!("/k8s.io"))
        .await?;
    let container = pod.start(&["probe", "memory", "20"], plain).await?;
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    cri.eventually("the container's figures are those of 20 MiB", async || {
        let stats = cri
            .crictl(&["stats", "--output", "json", "--id", &container.id])
            .await?
            .json()?;
        let stats = &stats["stats"][0];
        let memory = number(&stats["memory"]["workingSetBytes"]["value"]);
        Ok(memory > 20 << 20 && number(&stats["cpu"]["usageCoreNanoSeconds"]["value"]) > 0)
    })
    .await?;
    if cri.is_containerd_2() {
        cri.eventually("the pod's figures have the container", async || {
            let stats = cri
                .crictl(&["statsp", "--output", "json", "--id", &pod.id])
                .await?
                .json()?;
            let linux = &stats["stats"][0]["linux"];
            Ok(linux["containers"][0]["attributes"]["id"] == container.id.as_str())
        })
        .await?;
    }
    pod.remove().await
}

pub async fn features(cri: &Cri<'_>) -> Result<()> {
    let info = cri.crictl(&["info"]).await?.json()?;
    let handlers = info["runtimeHandlers"].as_array().context("no runtimeHandlers")?;
    let nucleus = handlers.iter().find(|handler| handler["name"] == "nucleus");
    let features = &nucleus.context("no handler nucleus")?["features"];
    for feature in ["recursive_read_only_mounts", "user_namespaces"] {
        same!(features[feature], json!(true), "{feature} of {features}");
    }
    Ok(())
}
