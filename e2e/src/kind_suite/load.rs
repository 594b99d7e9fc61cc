//! A Deployment behind a Service, and a pod that asks it without a pause: what changes under it must not lose a
//! request.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::eventually;
use super::manifests::{service, web};
use super::workload::{LIMIT, Space, is_ready};

const NAME: &str = "web";

/// It ends by itself, should nobody end it.
const SCRIPT: &str = "\
served=0; failed=0; end=$(($(date +%s) + 600))
until wget -q -O /dev/null http://$ADDRESS/; do usleep 200000; done
echo begun
while [ ! -e /tmp/stop ] && [ $(date +%s) -lt $end ]; do
    if wget -q -O /dev/null http://$ADDRESS/; then served=$((served + 1))
    else failed=$((failed + 1)); echo request $((served + failed)) failed >&2; fi
    usleep 20000
done
echo $served served, $failed failed
";

/// The Deployment's pods, served and asked.
pub struct Load<'a> {
    space: &'a Space<'a>,
    /// How many of them there are to be.
    replicas: i32,
}

impl<'a> Load<'a> {
    /// Creates all of it and waits until requests are answered. The pod that asks gets these fields.
    pub async fn start(space: &'a Space<'a>, replicas: i32, asks: Value) -> Result<Self> {
        let mut container = web(NAME);
        container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
        // The proxies of all nodes have to learn that a pod goes before it does.
        container["lifecycle"] = json!({"preStop": {"exec": {"command": ["sleep", "10"]}}});
        let mut spec = space.spec("true", json!({"terminationGracePeriodSeconds": 60}));
        spec["containers"] = json!([container]);
        let template = json!({"metadata": {"labels": {"app": NAME}}, "spec": spec});
        space
            .create::<Deployment>(json!({"metadata": {"name": NAME}, "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": NAME}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": template,
            }}))
            .await?;
        let service: Service = space.create(service(NAME)).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        let load = Self { space, replicas };
        load.until_settled().await?;
        let mut more = json!({"restartPolicy": "Never", "main": {"env": [{"name": "ADDRESS", "value": address}]}});
        if let (Some(more), Value::Object(asks)) = (more.as_object_mut(), asks) {
            more.extend(asks);
        }
        space.pod("asks", SCRIPT, more).await?;
        eventually("the Service to answer", LIMIT, async || {
            Ok(space.log("asks").await?.contains("begun").then_some(()))
        })
        .await?;
        Ok(load)
    }

    /// Changes the Deployment's spec.
    pub async fn change(&mut self, spec: Value) -> Result<()> {
        if let Some(replicas) = spec["replicas"].as_i64() {
            self.replicas = i32::try_from(replicas).context("so many replicas")?;
        }
        let patch = Patch::Strategic(json!({"spec": spec}));
        let deployments = self.space.api::<Deployment>();
        let patched = deployments.patch(NAME, &PatchParams::default(), &patch).await;
        patched.context("change the Deployment").map(drop)
    }

    /// Waits until as many pods as wanted are there and ready, of the latest template, and no others: those that go are
    /// gone.
    pub async fn until_settled(&self) -> Result<()> {
        eventually("the Deployment to be as it is to be", LIMIT, async || {
            let deployment = self.space.api::<Deployment>().get(NAME).await?;
            let generation = deployment.metadata.generation;
            let Some(status) = deployment.status else {
                return Ok(None);
            };
            let wanted = Some(self.replicas);
            let told = status.observed_generation == generation
                && status.updated_replicas == wanted
                && status.available_replicas == wanted
                && status.replicas == wanted;
            let pods = self.pods().await?;
            let there = pods.len() == usize::try_from(self.replicas)? && pods.iter().all(is_ready);
            Ok((told && there).then_some(()))
        })
        .await
    }

    pub async fn pods(&self) -> Result<Vec<Pod>> {
        self.space.pods(&format!("app={NAME}")).await
    }

    /// Ends it: every request has to have been answered.
    pub async fn end(self) -> Result<()> {
        self.space.exec("asks", &["touch", "/tmp/stop"]).await?;
        self.space.until_ended("asks").await?;
        let log = self.space.log("asks").await?;
        let last = log.lines().last().unwrap_or_default();
        let served = last.strip_suffix(" served, 0 failed");
        let served: Option<u32> = served.and_then(|number| number.parse().ok());
        ensure!(
            served.is_some_and(|served| served > 20),
            "the pod that asks says:\n{log}"
        );
        Ok(())
    }
}
