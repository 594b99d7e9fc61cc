//! That pods are replaced, added, taken away and moved under constant requests, and none of these fails.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use super::super::engine::run;
use super::super::load::Load;
use super::super::workload::Space;
use super::{Behaviour, Kind, common};

pub fn all() -> Vec<Behaviour> {
    let rolling = common("serving", "a rolling update and scaling lose no request", |space| {
        Box::pin(rolling_update(space))
    });
    let drain = common("serving", "a drained node's pods move and lose no request", |space| {
        Box::pin(drain(space))
    });
    vec![
        Behaviour {
            kind: Kind::Bare,
            ..rolling
        },
        Behaviour {
            kind: Kind::Bare,
            // What others run on that node would be moved, too.
            alone: true,
            ..drain
        },
    ]
}

async fn rolling_update(space: &Space<'_>) -> Result<()> {
    let mut load = Load::start(space, 2, json!({})).await?;
    let env = json!({"containers": [{"name": "web", "env": [{"name": "VERSION", "value": "2"}]}]});
    load.change(json!({"template": {"spec": env}})).await?;
    load.until_settled().await?;
    // What an autoscaler does.
    for replicas in [5, 2] {
        load.change(json!({"replicas": replicas})).await?;
        load.until_settled().await?;
    }
    load.end().await
}

async fn drain(space: &Space<'_>) -> Result<()> {
    let [_, drained, other] = space.cluster.nodes().try_into().ok().context("not three nodes")?;
    let asks = json!({"nodeSelector": {"kubernetes.io/hostname": other}});
    let load = Load::start(space, 4, asks).await?;
    space
        .create::<PodDisruptionBudget>(json!({"metadata": {"name": "web"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}))
        .await?;
    let there = async |node: &str| -> Result<usize> {
        let pods = load.pods().await?;
        let on = pods.iter().filter(|pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.node_name.as_deref()) == Some(node)
        });
        Ok(on.count())
    };
    ensure!(
        there(&drained).await? > 0,
        "none of the pods is where they are to be moved from"
    );
    let drain = [
        "drain",
        &drained,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=240s",
    ];
    let outcome = run(&mut space.cluster.kubectl(&drain)).await;
    let settled = load.until_settled().await;
    let left = there(&drained).await;
    run(&mut space.cluster.kubectl(&["uncordon", &drained])).await?;
    outcome?;
    settled?;
    ensure!(left? == 0, "pods are left on the drained node");
    load.end().await
}
