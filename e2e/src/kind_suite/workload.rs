//! A namespace of the cluster for one behaviour, and what is done in it.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ServiceAccount};
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Cluster, eventually};
use super::engine::run;
use super::store::BUSYBOX;

/// How long anything may take that is waited for: pods start within seconds, but the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Space<'a> {
    pub cluster: &'a Cluster<'a>,
    pub name: String,
    class: Option<&'a str>,
}

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// A kind of object that lives in namespaces.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize
{
}

impl<'a> Space<'a> {
    /// Makes one; its pods get this RuntimeClass.
    pub async fn new(cluster: &'a Cluster<'a>, class: Option<&'a str>) -> Result<Self> {
        let number = COUNT.with(|count| count.replace(count.get() + 1));
        let name = format!("e2e-{number}-{}", class.unwrap_or("runc"));
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).context("make a namespace")?;
        let made = namespaces.create(&PostParams::default(), &object).await;
        made.with_context(|| format!("create the namespace {name}"))?;
        let space = Self { cluster, name, class };
        eventually("the service account of a new namespace", LIMIT, async || {
            Ok(space.api::<ServiceAccount>().get_opt("default").await?.map(drop))
        })
        .await?;
        Ok(space)
    }

    pub fn api<K: Namespaced>(&self) -> Api<K> {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    pub async fn create<K: Namespaced>(&self, object: Value) -> Result<K> {
        let object: K = serde_json::from_value(object).context("read an object of the test")?;
        let created = self.api().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("create {} {:?}", K::kind(&()), object.meta().name))
    }

    /// A pod's spec of one container that runs a shell, with more or other fields.
    pub fn spec(&self, script: &str, more: Value) -> Value {
        let mut container = json!({"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"});
        container["command"] = json!(["sh", "-c", script]);
        let mut spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
        if let Some(class) = self.class {
            spec["runtimeClassName"] = json!(class);
        }
        merge(&mut spec, more);
        spec
    }

    /// Creates a pod of such a spec.
    pub async fn pod(&self, name: &str, script: &str, more: Value) -> Result<Pod> {
        let spec = self.spec(script, more);
        self.create(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Waits until a pod is as wanted.
    pub async fn until(&self, pod: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let what = format!("the pod {pod} {what}");
        eventually(&what, LIMIT, async || {
            let found = self.api::<Pod>().get_opt(pod).await?;
            Ok(found.filter(&wanted))
        })
        .await
    }

    pub async fn until_ready(&self, pod: &str) -> Result<Pod> {
        self.until(pod, "to be ready", is_ready).await
    }

    /// Waits until it has ended, well or not.
    pub async fn until_ended(&self, pod: &str) -> Result<Pod> {
        let ended = |pod: &Pod| matches!(phase(pod), "Succeeded" | "Failed");
        self.until(pod, "to end", ended).await
    }

    /// Waits until there is no such pod any more.
    pub async fn until_gone(&self, pod: &str) -> Result<()> {
        let what = format!("the pod {pod} to be gone");
        eventually(&what, LIMIT, async || {
            Ok(self.api::<Pod>().get_opt(pod).await?.is_none().then_some(()))
        })
        .await
    }

    pub async fn pods(&self, labels: &str) -> Result<Vec<Pod>> {
        let list = self.api::<Pod>().list(&ListParams::default().labels(labels)).await;
        Ok(list.context("list pods")?.items)
    }

    /// `kubectl`, in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.cluster.kubectl(&["--namespace", &self.name]);
        command.args(args);
        command
    }

    /// What a program says that is run in a pod.
    pub async fn exec(&self, pod: &str, args: &[&str]) -> Result<String> {
        run(self.kubectl(&["exec", pod, "--"]).args(args)).await
    }

    /// What a pod's container has written.
    pub async fn log(&self, pod: &str) -> Result<String> {
        let log = self.api::<Pod>().logs(pod, &LogParams::default()).await;
        log.with_context(|| format!("read the log of {pod}"))
    }

    /// Adds what the pods and the events of the namespace say.
    pub async fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let mut text = String::new();
        for pod in self.pods("").await.unwrap_or_default() {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let status = serde_json::to_string(&pod.status.and_then(|status| status.container_statuses));
            text += &format!("\n      pod {name}: {}", status.unwrap_or_default());
        }
        let events = self.api::<Event>().list(&ListParams::default()).await;
        for event in events.map(|list| list.items).unwrap_or_default() {
            let object = event.involved_object.name.unwrap_or_default();
            if event.type_.as_deref() == Some("Warning") {
                text += &format!("\n      {object}: {}", event.message.unwrap_or_default());
            }
        }
        anyhow!("{error:#}{text}")
    }

    /// Removes everything, and waits for it: a pod that cannot be removed is a failure.
    pub async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete the namespace {}", self.name))?;
        eventually("the namespace's pods to be gone", LIMIT, async || {
            Ok(self.pods("").await?.is_empty().then_some(()))
        })
        .await
    }
}

/// Puts fields into a pod's spec; those of its first container stand below `main`.
fn merge(spec: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        if key == "main" {
            if let (Some(container), Value::Object(fields)) = (spec["containers"][0].as_object_mut(), value) {
                container.extend(fields);
            }
        } else if key == "beside" {
            if let (Some(all), Value::Array(others)) = (spec["containers"].as_array_mut(), value) {
                all.extend(others);
            }
        } else {
            spec[key] = value;
        }
    }
}

pub fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    status.unwrap_or_default()
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// How often the pod's first container was started anew.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses
        .and_then(|all| all.first())
        .map_or(0, |first| first.restart_count)
}

/// How the pod's first container ended, now or the last time.
pub fn ending(pod: &Pod) -> Result<(i32, String, String)> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let status = statuses
        .and_then(|all| all.first())
        .context("the pod has no container status")?;
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    for state in states.into_iter().flatten() {
        if let Some(ended) = &state.terminated {
            let reason = ended.reason.clone().unwrap_or_default();
            return Ok((ended.exit_code, reason, ended.message.clone().unwrap_or_default()));
        }
    }
    bail!("its first container has not ended")
}
