//! The chart's upgrade and its end, with pods of the classes running.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::super::cluster::eventually;
use super::super::engine::run;
use super::super::release::{self, NAMESPACE, NEXT};
use super::super::workload::{LIMIT, Space, phase, restarts};
use super::Behaviour;
use super::chart::{alone, handlers, installer_on, label, nodes};
use super::runtime::{process, shim_of};

pub fn all() -> Vec<Behaviour> {
    vec![
        alone(
            "an upgrade leaves pods alone, and new ones have the new shim",
            |space| Box::pin(upgrade(space)),
        ),
        // The last one: nothing of the chart is there after it.
        alone(
            "an uninstall is refused while a pod of a class runs, else leaves the nodes as they were",
            |space| Box::pin(uninstall(space)),
        ),
    ]
}

/// The digest of the program that runs as a process of a node.
async fn program_of(space: &Space<'_>, node: &str, shim: &str) -> Result<String> {
    let said = space
        .cluster
        .on_node(node, &["sha256sum", &format!("/proc/{shim}/exe")])
        .await?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

async fn upgrade(space: &Space<'_>) -> Result<()> {
    let node = space.cluster.nodes().swap_remove(1);
    let there = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
    space.pod("old", "exec sleep 1000", there.clone()).await?;
    let (pid, _) = process(space, &space.until_ready("old").await?).await?;
    let (shim, _) = shim_of(space, &node, &pid).await?;
    let program = program_of(space, &node, &shim).await?;
    let started = [
        "systemctl",
        "show",
        "containerd",
        "--property=ActiveEnterTimestampMonotonic",
    ];
    let containerd = space.cluster.on_node(&node, &started).await?;

    release::helm(
        space.cluster,
        "upgrade",
        &["--reuse-values", "--set", &format!("image.tag={NEXT}")],
    )
    .await?;
    release::rolled_out(space.cluster).await?;
    ensure!(
        space.cluster.on_node(&node, &started).await? == containerd,
        "containerd was restarted for nothing"
    );
    let old = space.until_ready("old").await?;
    ensure!(
        restarts(&old) == 0 && process(space, &old).await?.0 == pid,
        "the old pod was restarted"
    );
    ensure!(
        program_of(space, &node, &shim).await? == program,
        "the old pod's shim changed"
    );
    ensure!(
        space.exec("old", &["echo", "hello"]).await? == "hello\n",
        "no exec in the old pod"
    );

    space.pod("new", "exec sleep 1000", there).await?;
    let (pid, _) = process(space, &space.until_ready("new").await?).await?;
    let (shim, _) = shim_of(space, &node, &pid).await?;
    ensure!(
        program_of(space, &node, &shim).await? != program,
        "the new pod has the old shim"
    );
    // The old one ends as it should, although its shim's file is gone.
    space
        .api::<Pod>()
        .delete("old", &DeleteParams::default())
        .await
        .context("delete the old pod")?;
    space.until_gone("old").await
}

async fn uninstall(space: &Space<'_>) -> Result<()> {
    let cluster = space.cluster;
    let node = cluster.nodes().swap_remove(1);
    let there = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
    space.pod("stays", "exec sleep 1000", there).await?;
    let (pid, _) = process(space, &space.until_ready("stays").await?).await?;
    // So that the refusal comes soon.
    release::helm(
        cluster,
        "upgrade",
        &["--reuse-values", "--set", "uninstall.timeoutSeconds=20"],
    )
    .await?;
    let uninstall = [
        "uninstall",
        release::NAME,
        "--namespace",
        NAMESPACE,
        "--timeout",
        "280s",
    ];
    if let Ok(said) = run(&mut cluster.helm(&uninstall)).await {
        bail!("it went away under a pod: {said}");
    }
    let refused = installer_on(cluster, &node).await?;
    let told = serde_json::to_string(&refused.status).context("read the installer's status")?;
    ensure!(
        told.contains("of nucleus run on this node"),
        "the installer says {told}"
    );
    let pod = space.until_ready("stays").await?;
    ensure!(
        restarts(&pod) == 0 && process(space, &pod).await?.0 == pid,
        "the pod was restarted"
    );
    ensure!(
        space.exec("stays", &["echo", "hello"]).await? == "hello\n",
        "no exec any more"
    );

    // Who wants to stay, can; helm upgrades nothing whose uninstall has failed.
    let last = release::revision(cluster).await?;
    let back = [
        "rollback",
        release::NAME,
        &(last - 1).to_string(),
        "--namespace",
        NAMESPACE,
        "--force-conflicts",
    ];
    run(&mut cluster.helm(&back)).await?;
    release::rolled_out(cluster).await?;
    ensure!(
        nodes(cluster).await?.iter().all(|node| label(node) == Some("true")),
        "a node is not ready again"
    );

    space
        .api::<Pod>()
        .delete("stays", &DeleteParams::default())
        .await
        .context("delete the pod")?;
    space.until_gone("stays").await?;
    run(&mut cluster.helm(&uninstall)).await?;
    let after = release::look(cluster).await?;
    for (before, after) in cluster.before.iter().zip(&after) {
        ensure!(before == after, "it was {before:#?}\nit is {after:#?}");
    }
    eventually("the nodes to report no handler any more", LIMIT, async || {
        let nodes = nodes(cluster).await?;
        Ok(nodes.iter().all(|node| handlers(node).is_empty()).then_some(()))
    })
    .await?;
    let kinds =
        "runtimeclasses,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings";
    let left = [
        "get",
        kinds,
        "--selector",
        "app.kubernetes.io/name=nucleus",
        "--output",
        "name",
    ];
    let left = run(&mut cluster.kubectl(&left)).await?;
    ensure!(left.is_empty(), "left: {left}");
    eventually("the release's namespace to be empty", LIMIT, async || {
        let left = run(&mut cluster.kubectl(&["--namespace", NAMESPACE, "get", "all", "--output", "name"])).await?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(Some(()))
    })
    .await?;
    common_pod(space).await
}

/// The nodes run pods as before.
async fn common_pod(space: &Space<'_>) -> Result<()> {
    let mut spec = space.spec("exit 0", json!({"restartPolicy": "Never"}));
    spec["runtimeClassName"] = Value::Null;
    space
        .create::<Pod>(json!({"metadata": {"name": "ordinary"}, "spec": spec}))
        .await?;
    let ended = space.until_ended("ordinary").await?;
    ensure!(phase(&ended) == "Succeeded", "{:?}", ended.status);
    Ok(())
}
