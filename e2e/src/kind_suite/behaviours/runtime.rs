//! That it is nucleus which runs the pods, and what happens to them when it or its surroundings fail.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use serde_json::{Value, json};

use super::super::workload::{Space, restarts};
use super::{Behaviour, common, ours};

pub fn all() -> Vec<Behaviour> {
    vec![
        ours("runtime", "the node says what its handler can do", |space| {
            Box::pin(features(space))
        }),
        ours("runtime", "a pod of the class runs in nucleus", |space| {
            Box::pin(is_nucleus(space))
        }),
        common(
            "runtime",
            "the createContainer hook of kind's specification has run",
            |space| Box::pin(hook(space)),
        ),
        alone(
            "runtime",
            "a killed shim's pod runs anew and nothing is left of it",
            |space| Box::pin(killed_shim(space)),
        ),
        alone("runtime", "containerd restarted, pods live on", |space| {
            Box::pin(containerd_restarted(space))
        }),
        alone("runtime", "kubelet restarted, pods live on", |space| {
            Box::pin(kubelet_restarted(space))
        }),
    ]
}

const fn alone(
    subject: &'static str,
    name: &'static str,
    run: for<'a> fn(&'a Space<'a>) -> super::Outcome<'a>,
) -> Behaviour {
    let mut behaviour = ours(subject, name, run);
    behaviour.alone = true;
    behaviour
}

async fn features(space: &Space<'_>) -> Result<()> {
    let nodes: Api<Node> = Api::all(space.cluster.client.clone());
    let node = nodes.get(&space.cluster.nodes()[0]).await.context("look at the node")?;
    let handlers = node
        .status
        .and_then(|status| status.runtime_handlers)
        .unwrap_or_default();
    let handler = handlers
        .iter()
        .find(|handler| handler.name.as_deref() == Some("nucleus"));
    let handler = handler.with_context(|| format!("the node has {handlers:?}"))?;
    let features = handler.features.clone().unwrap_or_default();
    ensure!(
        features.recursive_read_only_mounts == Some(true) && features.user_namespaces == Some(true),
        "it has {features:?}"
    );
    Ok(())
}

/// The host's number of the first process of a pod's container, and what containerd runs it with.
pub async fn process(space: &Space<'_>, pod: &Pod) -> Result<(String, String)> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let id = statuses
        .and_then(|all| all.first()?.container_id.as_deref())
        .context("the container has no id")?;
    let id = id.trim_start_matches("containerd://");
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .context("it is on no node")?;
    let told = space.cluster.on_node(node, &["crictl", "inspect", id]).await?;
    let told: Value = serde_json::from_str(&told).context("read what crictl says")?;
    let runtime = told["info"]["runtimeType"].as_str().unwrap_or_default().to_owned();
    Ok((told["info"]["pid"].to_string(), runtime))
}

/// The shim of a process of a node, and the program that it is.
pub async fn shim_of(space: &Space<'_>, node: &str, pid: &str) -> Result<(String, String)> {
    let script = format!(
        "parent=$(sed 's/.*) . //' /proc/{pid}/stat | cut -d' ' -f1); echo $parent; tr '\\0' ' ' </proc/$parent/cmdline"
    );
    let said = space.cluster.on_node(node, &["sh", "-c", &script]).await?;
    let (shim, program) = said.split_once('\n').context("no parent")?;
    Ok((shim.to_owned(), program.to_owned()))
}

async fn is_nucleus(space: &Space<'_>) -> Result<()> {
    let node = space.cluster.nodes().swap_remove(0);
    space.pod("which", "exec sleep 1000", json!({})).await?;
    let pod = space.until_ready("which").await?;
    let (pid, runtime) = process(space, &pod).await?;
    ensure!(
        runtime == "io.containerd.nucleus.v2",
        "containerd runs it with {runtime}"
    );
    let (_, program) = shim_of(space, &node, &pid).await?;
    ensure!(
        program.contains("containerd-shim-nucleus-v2"),
        "its parent is {program:?}"
    );
    Ok(())
}

async fn hook(space: &Space<'_>) -> Result<()> {
    let node = space.cluster.nodes().swap_remove(0);
    space.pod("hooked", "exec sleep 1000", json!({})).await?;
    space.until_ready("hooked").await?;
    let machine = space.cluster.on_node(&node, &["cat", "/kind/product_uuid"]).await?;
    let told = space.exec("hooked", &["cat", "/product_uuid"]).await?;
    ensure!(
        told == machine,
        "the hook was to tell {machine:?}, the pod has {told:?}"
    );
    Ok(())
}

async fn killed_shim(space: &Space<'_>) -> Result<()> {
    let node = space.cluster.nodes().swap_remove(0);
    space.pod("orphan", "exec sleep 4321", json!({})).await?;
    let pod = space.until_ready("orphan").await?;
    let (pid, _) = process(space, &pod).await?;
    let (shim, _) = shim_of(space, &node, &pid).await?;
    space.cluster.on_node(&node, &["kill", "-9", &shim]).await?;
    space
        .until("orphan", "to be restarted", |pod| {
            restarts(pod) > 0 && super::super::workload::is_ready(pod)
        })
        .await?;
    let left = space
        .cluster
        .on_node(
            &node,
            &["sh", "-c", &format!("ls -d /proc/{pid}/ns 2>/dev/null || true")],
        )
        .await?;
    ensure!(
        left.is_empty(),
        "the container's process {pid} lives on without its shim"
    );
    let sleeping = space
        .cluster
        .on_node(&node, &["sh", "-c", "pgrep -fc '^sleep 4321' || true"])
        .await?;
    ensure!(sleeping.trim() == "1", "there are {} of its program", sleeping.trim());
    Ok(())
}

/// Pods that run before something is restarted, run after it, as they were, and can be reached.
async fn live_on(space: &Space<'_>, unit: &str) -> Result<()> {
    let node = space.cluster.nodes().swap_remove(0);
    for name in ["one", "two"] {
        let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
        space
            .pod(name, "exec sleep 1000", json!({"main": {"livenessProbe": probe}}))
            .await?;
    }
    let mut before = Vec::new();
    for name in ["one", "two"] {
        let pod = space.until_ready(name).await?;
        before.push(process(space, &pod).await?.0);
    }
    space.cluster.on_node(&node, &["systemctl", "restart", unit]).await?;
    for (name, pid) in ["one", "two"].iter().zip(before) {
        super::super::cluster::eventually("exec to work again", super::super::workload::LIMIT, async || {
            Ok(space.exec(name, &["true"]).await.is_ok().then_some(()))
        })
        .await?;
        let pod = space.until_ready(name).await?;
        ensure!(restarts(&pod) == 0, "{name} was restarted");
        ensure!(process(space, &pod).await?.0 == pid, "{name} is another process");
    }
    space.pod("after", "exec sleep 1000", json!({})).await?;
    space.until_ready("after").await.map(drop)
}

async fn containerd_restarted(space: &Space<'_>) -> Result<()> {
    live_on(space, "containerd").await
}

async fn kubelet_restarted(space: &Space<'_>) -> Result<()> {
    live_on(space, "kubelet").await
}
