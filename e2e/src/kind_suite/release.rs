//! The chart's release on a cluster, as a cluster's administrator makes it: the Dockerfile built, the image loaded into
//! the nodes, helm.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use serde_json::Value;

use super::cluster::Cluster;
use super::engine::run;
use super::{make_directory, text, write};
use crate::prepare::root;

pub const NAME: &str = "nucleus";
pub const NAMESPACE: &str = "nucleus-system";
const DAEMONSET: &str = "daemonset/nucleus-installer";
/// The chart's own tag, and that of an image with another shim.
const TAG: &str = "0.1.0";
pub const NEXT: &str = "0.1.0-next";
const SHIM: &str = "containerd-shim-nucleus-v2";

/// What is to be on a node again after an uninstall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    name: String,
    /// Files by their digests.
    files: String,
    labels: BTreeMap<String, String>,
}

/// Looks at the nodes as they are.
pub async fn look(cluster: &Cluster<'_>) -> Result<Vec<NodeState>> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let mut states = Vec::new();
    for name in cluster.nodes() {
        let script = "find /etc/containerd /opt /usr/local/bin -type f -exec sha256sum {} + | sort -k 2";
        let files = cluster.on_node(&name, &["sh", "-c", script]).await?;
        let node = nodes.get(&name).await.with_context(|| format!("look at {name}"))?;
        states.push(NodeState {
            name,
            files,
            labels: node.metadata.labels.unwrap_or_default(),
        });
    }
    Ok(states)
}

/// Builds the image, brings it to the nodes, installs the chart and waits until every node is ready for pods of the
/// classes.
pub async fn install(cluster: &Cluster<'_>) -> Result<()> {
    let shim = std::fs::read(&cluster.setting.shim).context("read the shim")?;
    load(cluster, TAG, &shim).await?;
    // What stands at a program's end is not read by the kernel: another file that does the same.
    let next = [shim.as_slice(), b"the next version\n"].concat();
    load(cluster, NEXT, &next).await?;
    helm(
        cluster,
        "install",
        &["--create-namespace", "--set", "runtimeClasses.production.enabled=true"],
    )
    .await?;
    rolled_out(cluster).await
}

/// `helm install` or `helm upgrade` of this release; on all nodes at the same time, because each one's installation is
/// seen by itself.
pub async fn helm(cluster: &Cluster<'_>, verb: &str, more: &[&str]) -> Result<String> {
    let chart = text(&root().join("charts/nucleus"));
    let mut helm = cluster.helm(&[verb, NAME, &chart, "--namespace", NAMESPACE]);
    helm.args(["--set", "installer.maxUnavailable=100%"]).args(more);
    run(&mut helm).await
}

/// The number of its latest revision.
pub async fn revision(cluster: &Cluster<'_>) -> Result<u64> {
    let history = ["history", NAME, "--namespace", NAMESPACE, "--output", "json"];
    let told: Value = serde_json::from_str(&run(&mut cluster.helm(&history)).await?).context("read helm's history")?;
    let last = told.as_array().and_then(|all| all.last()?["revision"].as_u64());
    last.with_context(|| format!("helm's history is {told}"))
}

/// Waits for the installer on every node; an error says what its pods say.
pub async fn rolled_out(cluster: &Cluster<'_>) -> Result<()> {
    let status = [
        "--namespace",
        NAMESPACE,
        "rollout",
        "status",
        DAEMONSET,
        "--timeout=240s",
    ];
    let Err(error) = run(&mut cluster.kubectl(&status)).await else {
        return Ok(());
    };
    let described = run(&mut cluster.kubectl(&["--namespace", NAMESPACE, "describe", "pods"])).await;
    Err(error.context(described.unwrap_or_default()))
}

/// Builds the installer's image with a shim, as the Dockerfile says, and loads it into every node.
async fn load(cluster: &Cluster<'_>, tag: &str, shim: &[u8]) -> Result<()> {
    let setting = cluster.setting;
    let context = setting.directory.join(format!("image-{tag}"));
    make_directory(&context)?;
    let installer = context.join("nucleus-installer");
    std::fs::copy(&setting.installer, &installer).context("copy the installer")?;
    write(&context.join(SHIM), shim)?;
    executable(&context.join(SHIM))?;
    let image = format!("nucleus-installer:{tag}");
    let file = text(&root().join("charts/nucleus/Dockerfile"));
    let build = ["build", "--tag", &image, "--file", &file, &text(&context)];
    cluster.engine.docker(&build).await?;
    let mut load = cluster.engine.command("kind");
    run(load.args(["load", "docker-image", &image, "--name", &cluster.name])).await?;
    cluster.engine.docker(&["rmi", "--force", &image]).await.map(drop)
}

fn executable(file: &Path) -> Result<()> {
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("chmod {}", text(file)))
}
