//! What controllers make of pods.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use serde_json::json;

use super::super::cluster::eventually;
use super::super::manifests::{service, web};
use super::super::workload::{LIMIT, Space};
use super::{Behaviour, common};

pub fn all() -> Vec<Behaviour> {
    vec![
        // The first one: it waits for the next minute to begin.
        common("workloads", "a CronJob runs when its time comes", |space| {
            Box::pin(cron(space))
        }),
        common(
            "workloads",
            "a Job completes, and one that fails is tried again",
            |space| Box::pin(jobs(space)),
        ),
        common("workloads", "a Deployment is served through its Service", |space| {
            Box::pin(deployment(space))
        }),
        common("workloads", "a StatefulSet's pods come one after the other", |space| {
            Box::pin(stateful(space))
        }),
    ]
}

async fn cron(space: &Space<'_>) -> Result<()> {
    let pod = space.spec("echo the time has come", json!({"restartPolicy": "Never"}));
    let job = json!({"spec": {"template": {"spec": pod}}});
    space
        .create::<CronJob>(json!({"metadata": {"name": "cron"}, "spec": {"schedule": "* * * * *", "jobTemplate": job}}))
        .await?;
    eventually("a Job of the CronJob to succeed", LIMIT * 2, async || {
        let jobs = space.api::<Job>().list(&ListParams::default()).await?.items;
        let succeeded = jobs
            .iter()
            .any(|job| job.status.as_ref().and_then(|status| status.succeeded) == Some(1));
        Ok(succeeded.then_some(()))
    })
    .await
}

async fn jobs(space: &Space<'_>) -> Result<()> {
    let job = |name: &str, script: &str| {
        let template = json!({"spec": space.spec(script, json!({"restartPolicy": "Never"}))});
        json!({"metadata": {"name": name},
            "spec": {"completions": 3, "parallelism": 2, "backoffLimit": 1, "template": template}})
    };
    space.create::<Job>(job("good", "exit 0")).await?;
    space.create::<Job>(job("bad", "exit 1")).await?;
    eventually("both Jobs to be over", LIMIT, async || {
        let jobs = space.api::<Job>();
        let over = |job: &Job, condition: &str| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == condition && one.status == "True"))
        };
        let (good, bad) = (jobs.get("good").await?, jobs.get("bad").await?);
        Ok((over(&good, "Complete") && over(&bad, "Failed")).then_some(()))
    })
    .await
}

async fn deployment(space: &Space<'_>) -> Result<()> {
    let mut container = web("web");
    container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    let mut spec = space.spec("true", json!({}));
    spec["containers"] = json!([container]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    space
        .create::<Deployment>(json!({"metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}}))
        .await?;
    let service: Service = space.create(service("web")).await?;
    eventually("three pods of the Deployment", LIMIT, async || {
        let deployment = space.api::<Deployment>().get("web").await?;
        let ready = deployment.status.and_then(|status| status.ready_replicas);
        Ok((ready == Some(3)).then_some(()))
    })
    .await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    space.pod("asks", "exec sleep 1000", json!({})).await?;
    space.until_ready("asks").await?;
    eventually("the Service's address to lead to the pods", LIMIT, async || {
        let said = space
            .exec("asks", &["wget", "-q", "-O", "-", &format!("http://{address}/")])
            .await;
        Ok(said.is_ok().then_some(()))
    })
    .await?;
    for _ in 0..10 {
        space
            .exec(
                "asks",
                &["wget", "-q", "-O", "/dev/null", &format!("http://{address}/")],
            )
            .await?;
    }
    Ok(())
}

async fn stateful(space: &Space<'_>) -> Result<()> {
    let template =
        json!({"metadata": {"labels": {"app": "one"}}, "spec": space.spec("hostname; exec sleep 1000", json!({}))});
    space
        .create::<StatefulSet>(
            json!({"metadata": {"name": "one"}, "spec": {"replicas": 2, "serviceName": "one",
            "selector": {"matchLabels": {"app": "one"}}, "template": template}}),
        )
        .await?;
    space.until_ready("one-1").await?;
    let log = space.log("one-1").await?;
    ensure!(log == "one-1\n", "its name is {log:?}");
    let first = space.api::<k8s_openapi::api::core::v1::Pod>().get("one-0").await?;
    ensure!(super::super::workload::is_ready(&first), "the first one is not ready");
    Ok(())
}
