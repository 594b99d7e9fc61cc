//! The chart's admission policies, as the API server evaluates them: what they refuse, in whose words, and what they
//! let through.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use serde_json::{Value, json};

use super::super::cluster::eventually;
use super::super::engine::run;
use super::super::release::NAMESPACE;
use super::super::workload::{LIMIT, Space, phase};
use super::super::{text, write};
use super::Behaviour;
use super::chart::{alone, installed, installer_on, label};

pub fn all() -> Vec<Behaviour> {
    vec![
        installed("wrong annotations are refused where the pod is made", |space| {
            Box::pin(annotations(space))
        }),
        alone(
            "the installer's account labels its own node and changes nothing else",
            |space| Box::pin(account(space)),
        ),
    ]
}

async fn annotations(space: &Space<'_>) -> Result<()> {
    let pod = |name: &str, class: Option<&str>, annotation: (&str, &str)| {
        let mut spec = space.spec("exit 0", json!({"restartPolicy": "Never"}));
        spec["runtimeClassName"] = class.into();
        json!({"metadata": {"name": name, "annotations": {annotation.0: annotation.1}}, "spec": spec})
    };
    let ours = Some("nucleus");
    for (class, annotation, words) in [
        (
            None,
            ("nucleus.dev/mode", "production"),
            "mean nothing without one of the RuntimeClasses",
        ),
        (
            ours,
            ("nucleus.dev/mode", "lax"),
            "nucleus.dev/mode is neither agent nor production",
        ),
        (ours, ("nucleus.dev/no_new_privs", "yes"), "are either true or false"),
        (
            ours,
            ("nucleus.dev/require.memory_limit", ""),
            "are either true or false",
        ),
        (
            ours,
            ("nucleus.dev/runtime", "/bin/sh"),
            "nucleus.dev/runtime is neither native nor gvisor",
        ),
    ] {
        match space.create::<Pod>(pod("wrong", class, annotation)).await {
            Ok(_) => bail!("{annotation:?} was let in"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(words), "{annotation:?}: {words:?} is not in {said}");
            }
        }
    }
    space
        .create::<Pod>(pod("right", ours, ("nucleus.dev/no_new_privs", "true")))
        .await?;
    space
        .create::<Pod>(pod("others", None, ("example.com/mode", "lax")))
        .await?;
    for name in ["right", "others"] {
        let ended = space.until_ended(name).await?;
        ensure!(phase(&ended) == "Succeeded", "{name}: {:?}", ended.status);
    }
    // What the policy at admission does not know, the node refuses: a setting that would be loosened.
    let mut loose = pod(
        "loose",
        Some("nucleus-production"),
        ("nucleus.dev/no_new_privs", "false"),
    );
    loose["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi"}});
    space.create::<Pod>(loose).await?;
    eventually("the node to refuse what loosens", LIMIT, async || {
        let said = run(&mut space.kubectl(&["get", "events", "--field-selector", "involvedObject.name=loose"])).await?;
        Ok(said.contains("no_new_privs").then_some(()))
    })
    .await
}

/// A kubeconfig with the token that the installer's pod on this node has.
async fn account_of(space: &Space<'_>, node: &str) -> Result<String> {
    let pod = installer_on(space.cluster, node)
        .await?
        .metadata
        .name
        .unwrap_or_default();
    let bound = format!("--bound-object-name={pod}");
    let token = [
        "create",
        "token",
        "nucleus-installer",
        "--namespace",
        NAMESPACE,
        "--bound-object-kind=Pod",
        &bound,
    ];
    let token = run(&mut space.cluster.kubectl(&token)).await?;
    let kubeconfig = std::fs::read_to_string(&space.cluster.kubeconfig).context("read the kubeconfig")?;
    let mut kubeconfig: Value = serde_yaml_ng::from_str(&kubeconfig).context("read the kubeconfig")?;
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    let file = space
        .cluster
        .setting
        .directory
        .join(format!("{}.kubeconfig", space.name));
    write(&file, kubeconfig.to_string())?;
    Ok(text(&file))
}

async fn account(space: &Space<'_>) -> Result<()> {
    let [_, own, other] = space.cluster.nodes().try_into().ok().context("not three nodes")?;
    let kubeconfig = account_of(space, &own).await?;
    let as_installer = async |args: &[&str]| {
        let mut kubectl = space.cluster.engine.command("kubectl");
        run(kubectl.env("KUBECONFIG", &kubeconfig).args(args)).await
    };
    let nothing_else = "this account changes nothing of a node but its label nucleus.dev/ready";
    for (args, words) in [
        (
            &["label", "node", &other, "nucleus.dev/ready=false", "--overwrite"][..],
            "this account changes the node that its pod runs on, and no other",
        ),
        (
            &["label", "node", &own, "example.com/pool=a"],
            "this account changes no label but nucleus.dev/ready",
        ),
        (
            &["label", "node", &own, "kubernetes.io/hostname-"],
            "this account changes no label but nucleus.dev/ready",
        ),
        (&["annotate", "node", &own, "example.com/note=a"], nothing_else),
        (
            // `kubectl cordon` tells a refusal, and ends well.
            &["patch", "node", &own, "--patch={\"spec\":{\"unschedulable\":true}}"],
            nothing_else,
        ),
        (
            &[
                "patch",
                "node",
                &own,
                "--subresource=status",
                "--patch={\"status\":{\"phase\":\"Pending\"}}",
            ],
            "forbidden",
        ),
        (&["delete", "node", &other], "forbidden"),
        (&["get", "secrets", "--namespace", NAMESPACE], "forbidden"),
    ] {
        match as_installer(args).await {
            Ok(said) => bail!("{args:?} worked: {said}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(words), "{args:?}: {words:?} is not in {said}");
            }
        }
    }
    for value in ["false", "true"] {
        let set = format!("nucleus.dev/ready={value}");
        as_installer(&["label", "node", &own, &set, "--overwrite"]).await?;
        let node = Api::<Node>::all(space.cluster.client.clone()).get(&own).await?;
        ensure!(label(&node) == Some(value), "it is {:?}", label(&node));
    }
    Ok(())
}
