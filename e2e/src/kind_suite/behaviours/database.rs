//! A database as people run it: a StatefulSet whose volume outlives its pod.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use super::super::store::{BUSYBOX, POSTGRES};
use super::super::workload::{Space, is_ready};
use super::{Behaviour, common};

pub fn all() -> Vec<Behaviour> {
    vec![common(
        "workloads",
        "a StatefulSet's PostgreSQL has its data when its pod is replaced",
        |space| Box::pin(postgresql(space)),
    )]
}

const SERVE: &str = "\
if [ ! -e /data/made ]; then
    rm -rf /data/db
    initdb --pgdata /data/db --username postgres --auth trust --locale C.UTF-8 --encoding UTF8 --no-sync
    echo host all all all trust >>/data/db/pg_hba.conf
    touch /data/made
fi
exec postgres -D /data/db -c 'listen_addresses=*' -c unix_socket_directories=/tmp
";

async fn postgresql(space: &Space<'_>) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(space.cluster.client.clone());
    let volume = json!({"metadata": {"name": space.name}, "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": format!("/var/lib/e2e/{}", space.name), "type": "DirectoryOrCreate"},
    }});
    let volume = serde_json::from_value(volume).context("make a volume")?;
    let made = volumes.create(&PostParams::default(), &volume).await;
    made.context("create the volume")?;
    let outcome = on_volume(space).await;
    let removed = volumes.delete(&space.name, &DeleteParams::default()).await;
    outcome?;
    removed.context("delete the volume").map(drop)
}

async fn on_volume(space: &Space<'_>) -> Result<()> {
    let probe = json!({"exec": {"command": ["pg_isready", "--quiet"]}, "periodSeconds": 1, "timeoutSeconds": 10});
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let spec = space.spec(
        SERVE,
        json!({
            "terminationGracePeriodSeconds": 60,
            "initContainers": [{"name": "owner", "image": BUSYBOX, "imagePullPolicy": "Never",
                "command": ["chown", "999:999", "/data"], "volumeMounts": mounts}],
            "main": {"image": POSTGRES, "volumeMounts": mounts, "readinessProbe": probe,
                "resources": {"limits": {"memory": "256Mi"}},
                "securityContext": {"runAsNonRoot": true, "runAsUser": 999, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}}},
        }),
    );
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "volumeName": space.name, "resources": {"requests": {"storage": "1Gi"}}}});
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": spec});
    space
        .create::<StatefulSet>(
            json!({"metadata": {"name": "db"}, "spec": {"replicas": 1, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template, "volumeClaimTemplates": [claim]}}),
        )
        .await?;
    let port = json!([{"port": 5432, "targetPort": 5432}]);
    let service: Service = space
        .create(json!({"metadata": {"name": "db"}, "spec": {"selector": {"app": "db"}, "ports": port}}))
        .await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    let first = space.until_ready("db-0").await?.metadata.uid;
    let sql = async |text: &str| space.exec("db-0", &["psql", "-qAtX", "-c", text]).await;
    sql("create table t (n int); insert into t select generate_series(1, 1000)").await?;
    ensure!(
        sql("select sum(n) from t").await? == "500500\n",
        "the table is not what was written"
    );

    let pods = space.api::<Pod>();
    pods.delete("db-0", &DeleteParams::default())
        .await
        .context("delete the pod")?;
    let another = |pod: &Pod| pod.metadata.uid != first && is_ready(pod);
    space.until("db-0", "to be replaced and ready", another).await?;
    // It ended as it should: nothing had to be recovered.
    let log = space.log("db-0").await?;
    ensure!(!log.contains("not properly shut down"), "its log is {log}");
    // kube-proxy hears of the new pod in its own time, and refuses connections until then.
    let psql = format!("psql -h {address} -qAtX -c");
    let script =
        format!("until {psql} 'select 1' >/dev/null 2>&1; do sleep 1; done; exec {psql} 'select sum(n) from t'");
    let client = json!({"restartPolicy": "Never", "main": {"image": POSTGRES}});
    space.pod("client", &script, client).await?;
    space.until_ended("client").await?;
    let said = space.log("client").await?;
    ensure!(said == "500500\n", "through its Service it says {said:?}");
    Ok(())
}
