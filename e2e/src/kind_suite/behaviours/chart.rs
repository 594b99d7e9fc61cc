//! The chart on plain nodes: what it puts there.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::super::cluster::{Cluster, eventually};
use super::super::engine::run;
use super::super::release::{self, NAMESPACE};
use super::super::text;
use super::super::workload::{LIMIT, Space, is_ready};
use super::runtime::process;
use super::{Behaviour, Kind, Outcome, ours};

pub fn all() -> Vec<Behaviour> {
    vec![
        installed(
            "every node is labelled, and tells the handlers and what they can do",
            |space| Box::pin(labelled(space)),
        ),
        installed("helm test runs a pod of each class", |space| Box::pin(helm_test(space))),
        installed("a DaemonSet's pods run in nucleus on every node", |space| {
            Box::pin(on_every_node(space))
        }),
        installed("a second release is refused, and the first stays", |space| {
            Box::pin(second_release(space))
        }),
    ]
}

pub const fn installed(name: &'static str, run: for<'a> fn(&'a Space<'a>) -> Outcome<'a>) -> Behaviour {
    let mut behaviour = ours("chart", name, run);
    behaviour.kind = Kind::Bare;
    behaviour
}

pub const fn alone(name: &'static str, run: for<'a> fn(&'a Space<'a>) -> Outcome<'a>) -> Behaviour {
    let mut behaviour = installed(name, run);
    behaviour.alone = true;
    behaviour
}

pub async fn nodes(cluster: &Cluster<'_>) -> Result<Vec<Node>> {
    let nodes = Api::<Node>::all(cluster.client.clone())
        .list(&ListParams::default())
        .await;
    Ok(nodes.context("list the nodes")?.items)
}

pub fn label(node: &Node) -> Option<&str> {
    node.metadata
        .labels
        .as_ref()?
        .get("nucleus.dev/ready")
        .map(String::as_str)
}

/// The handlers of ours that a node reports.
pub fn handlers(node: &Node) -> Vec<String> {
    let all = node.status.as_ref().and_then(|status| status.runtime_handlers.as_ref());
    let names = all.into_iter().flatten().filter_map(|handler| handler.name.clone());
    names.filter(|name| name.starts_with("nucleus")).collect()
}

async fn labelled(space: &Space<'_>) -> Result<()> {
    let nodes = nodes(space.cluster).await?;
    ensure!(nodes.len() == 3, "{} nodes", nodes.len());
    for node in &nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        ensure!(label(node) == Some("true"), "{name} is labelled {:?}", label(node));
        let mut found = handlers(node);
        found.sort();
        ensure!(found == ["nucleus", "nucleus-production"], "{name} has {found:?}");
        let all = node.status.as_ref().and_then(|status| status.runtime_handlers.as_ref());
        let ours = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with("nucleus"));
        for handler in all.into_iter().flatten().filter(|handler| ours(&handler.name)) {
            let features = handler.features.clone().unwrap_or_default();
            ensure!(
                features.recursive_read_only_mounts == Some(true) && features.user_namespaces == Some(true),
                "{name}: {handler:?}"
            );
        }
    }
    let classes: Api<RuntimeClass> = Api::all(space.cluster.client.clone());
    for name in ["nucleus", "nucleus-production"] {
        let class = classes
            .get(name)
            .await
            .with_context(|| format!("look at the class {name}"))?;
        ensure!(class.handler == name, "{class:?}");
    }
    // What the API server found out about the expressions when they were made.
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(space.cluster.client.clone());
    let policies = policies
        .list(&ListParams::default())
        .await
        .context("list the policies")?
        .items;
    ensure!(policies.len() == 2, "{} policies", policies.len());
    for policy in policies {
        let checked = policy.status.and_then(|status| status.type_checking);
        let warnings = checked
            .and_then(|checked| checked.expression_warnings)
            .unwrap_or_default();
        ensure!(warnings.is_empty(), "{:?}: {warnings:?}", policy.metadata.name);
    }
    Ok(())
}

async fn helm_test(space: &Space<'_>) -> Result<()> {
    let test = ["test", release::NAME, "--namespace", NAMESPACE, "--timeout", "240s"];
    let said = run(&mut space.cluster.helm(&test)).await?;
    for class in ["nucleus", "nucleus-production"] {
        let suite = format!("nucleus-test-{class}\n");
        ensure!(said.contains(&suite), "no {suite:?} in {said}");
    }
    ensure!(said.matches("Succeeded").count() == 2, "{said}");
    Ok(())
}

async fn on_every_node(space: &Space<'_>) -> Result<()> {
    let spec = space.spec("exec sleep 1000", json!({"tolerations": [{"operator": "Exists"}]}));
    let template = json!({"metadata": {"labels": {"app": "everywhere"}}, "spec": spec});
    space
        .create::<DaemonSet>(json!({"metadata": {"name": "everywhere"},
            "spec": {"selector": {"matchLabels": {"app": "everywhere"}}, "template": template}}))
        .await?;
    let pods = eventually("a pod on every node", LIMIT, async || {
        let pods = space.pods("app=everywhere").await?;
        Ok((pods.len() == 3 && pods.iter().all(is_ready)).then_some(pods))
    })
    .await?;
    for pod in pods {
        let (_, runtime) = process(space, &pod).await?;
        ensure!(runtime == "io.containerd.nucleus.v2", "one runs with {runtime}");
    }
    Ok(())
}

async fn second_release(space: &Space<'_>) -> Result<()> {
    let chart = text(&crate::prepare::root().join("charts/nucleus"));
    let second = ["install", "second", &chart, "--namespace", &space.name];
    match run(&mut space.cluster.helm(&second)).await {
        Ok(said) => bail!("it was installed: {said}"),
        Err(error) => {
            let said = format!("{error:#}");
            let words = ["RuntimeClass \"nucleus\"", "invalid ownership metadata"];
            ensure!(words.iter().all(|words| said.contains(words)), "{said}");
        }
    }
    let classes: Api<RuntimeClass> = Api::all(space.cluster.client.clone());
    classes
        .get("nucleus")
        .await
        .context("the first release's class is gone")
        .map(drop)
}

/// The installer's pod on a node.
pub async fn installer_on(cluster: &Cluster<'_>, node: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let installers = ListParams::default()
        .labels("app.kubernetes.io/component=installer")
        .fields(&format!("spec.nodeName={node}"));
    let mut pods = pods.list(&installers).await.context("list the installer's pods")?.items;
    pods.pop().with_context(|| format!("no installer on {node}"))
}
