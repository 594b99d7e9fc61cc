//! A node on which everything runs on nucleus: etcd, the API server, kube-proxy, and whatever names no class.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::cluster::eventually;
use super::super::workload::{LIMIT, Space};
use super::{Behaviour, Kind};

pub fn all() -> Vec<Behaviour> {
    vec![Behaviour {
        kind: Kind::Default,
        subject: "default",
        name: "the control plane itself runs on nucleus",
        run: |space| Box::pin(control_plane(space)),
        on_runc: false,
        alone: true,
    }]
}

const WANTED: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
];

async fn control_plane(space: &Space<'_>) -> Result<()> {
    // kube-proxy comes only once the node is ready.
    eventually("everything of the control plane, on nucleus", LIMIT, async || {
        let names = on_nucleus(space).await?;
        let all = WANTED.iter().all(|wanted| names.iter().any(|name| name == wanted));
        Ok(all.then_some(()))
    })
    .await
}

/// The names of the containers that run; an error where one of them is not on nucleus.
async fn on_nucleus(space: &Space<'_>) -> Result<Vec<String>> {
    let node = space.cluster.nodes().swap_remove(0);
    let list = ["crictl", "ps", "--output", "json"];
    let told = space.cluster.on_node(&node, &list).await?;
    let told: Value = serde_json::from_str(&told).context("read what crictl says")?;
    let mut names = Vec::new();
    for container in told["containers"].as_array().into_iter().flatten() {
        let id = container["id"].as_str().context("a container has no id")?;
        let name = &container["metadata"]["name"];
        let inspected = space.cluster.on_node(&node, &["crictl", "inspect", id]).await?;
        let inspected: Value = serde_json::from_str(&inspected).context("read what crictl says")?;
        let runtime = &inspected["info"]["runtimeType"];
        ensure!(runtime == "io.containerd.nucleus.v2", "{name} runs with {runtime}");
        names.push(name.as_str().unwrap_or_default().to_owned());
    }
    Ok(names)
}
