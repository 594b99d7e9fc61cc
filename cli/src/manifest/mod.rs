//! What nodes would make of the pods in a Kubernetes manifest, as far as a manifest says it.

mod pods;
mod spec;

use std::fmt;
use std::path::{Path, PathBuf};

use runtime_core::bundle::Bundle;
use runtime_core::error_chain::chain;
use runtime_core::plan;
use runtime_core::policy::Policy;
use serde_json::{Map, Value, json};

use crate::bundle::{self, Layers};
use crate::report::{self, entries, settings};
use pods::Pod;
use spec::Translated;

/// Why a manifest cannot be explained. What a pod would be refused for is no such reason: it is part of the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("read {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    Pods(#[from] pods::Error),
}

/// What is known of the pods of a manifest.
#[derive(Debug)]
pub struct Report {
    pods: Vec<Explained>,
    /// Documents without pods.
    skipped: Vec<String>,
}

#[derive(Debug)]
struct Explained {
    about: String,
    /// What was decided, or why the pod would be refused.
    policy: Result<Policy, String>,
    containers: Vec<Container>,
}

/// Lines about one container.
type Enforced = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Container {
    name: String,
    /// What is enforced, and the hardened spec; or why it would be refused.
    outcome: Result<(Enforced, Option<Value>), String>,
    /// What a manifest does not say.
    unknown: Vec<String>,
}

/// The pods of the manifest `path`, under the given configurations.
pub fn explain(path: &Path, layers: &Layers, with_spec: bool) -> Result<Report, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let found = pods::find(&text)?;
    Ok(Report {
        pods: found
            .pods
            .iter()
            .map(|pod| explain_pod(pod, layers, with_spec))
            .collect(),
        skipped: found.skipped,
    })
}

fn explain_pod(pod: &Pod, layers: &Layers, with_spec: bool) -> Explained {
    let annotations = pod
        .annotations
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let policy = layers.policy(annotations).map_err(|error| chain(&error));
    let containers = match &policy {
        Ok(policy) => pod
            .containers()
            .map(|(kind, container)| explain_container(pod, kind, container, policy, with_spec))
            .collect(),
        Err(_) => Vec::new(),
    };
    let class = match pod.spec["runtimeClassName"].as_str() {
        Some(class) => format!("runtimeClassName {class}"),
        None => "no runtimeClassName: on nucleus where that is the node's default".to_owned(),
    };
    Explained {
        about: format!("{}; {class}", pod.name),
        policy,
        containers,
    }
}

fn explain_container(pod: &Pod, kind: &str, container: &Value, policy: &Policy, with_spec: bool) -> Container {
    let Translated { spec, unknown } = spec::of(pod, container);
    let outcome = serde_json::from_value(spec)
        .map_err(|error| format!("the manifest: {error}"))
        .and_then(|spec| {
            let bundle = Bundle {
                dir: "/run/containerd/bundle".into(),
                spec,
            };
            let request = bundle::request(&bundle.spec, policy).map_err(|error| chain(&error))?;
            let request = plan::Request {
                // The directories of a pod's volumes are there when the pod is: here, those that the manifest names.
                pod_volumes: pod.volumes().map(str::to_owned).collect(),
                ..request
            };
            let plan = plan::translate_owned(bundle, &request).map_err(|error| chain(&error))?;
            let spec = with_spec.then(|| serde_json::to_value(&plan.spec).unwrap_or_default());
            Ok((bundle::enforced(&plan), spec))
        });
    Container {
        name: format!("{kind} {}", container["name"].as_str().unwrap_or("without a name")),
        outcome,
        unknown,
    }
}

impl Report {
    /// Whether every pod would be accepted.
    pub fn is_accepted(&self) -> bool {
        let containers = self.pods.iter().flat_map(|pod| &pod.containers);
        self.pods.iter().all(|pod| pod.policy.is_ok()) && containers.map(|one| &one.outcome).all(Result::is_ok)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let pods = self.pods.iter().map(|pod| {
            let containers = pod.containers.iter().map(|container| {
                let (enforced, spec, refused) = match &container.outcome {
                    Ok((enforced, spec)) => (Some(report::object(enforced)), spec.clone(), None),
                    Err(error) => (None, None, Some(error)),
                };
                json!({
                    "container": container.name, "enforced": enforced, "spec": spec, "refused": refused,
                    "known_on_the_node": container.unknown,
                })
            });
            json!({
                "pod": pod.about,
                "settings": pod.policy.as_ref().ok().map(settings).unwrap_or(Map::new()),
                "refused": pod.policy.as_ref().err(),
                "containers": containers.collect::<Vec<_>>(),
            })
        });
        json!({"pods": pods.collect::<Vec<_>>(), "skipped": self.skipped})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pod) in self.pods.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}\n", pod.about)?;
            match &pod.policy {
                Ok(policy) => report::write_settings(f, policy)?,
                Err(error) => writeln!(f, "would be refused: {error}")?,
            }
            for container in &pod.containers {
                writeln!(f, "\n{}", container.name)?;
                match &container.outcome {
                    Ok((enforced, spec)) => {
                        entries(f, enforced)?;
                        if let Some(spec) = spec {
                            writeln!(f, "\n{spec:#}")?;
                        }
                    }
                    Err(error) => writeln!(f, "  would be refused: {error}")?,
                }
                for unknown in &container.unknown {
                    writeln!(f, "  known on the node alone: {unknown}")?;
                }
            }
        }
        for skipped in &self.skipped {
            writeln!(f, "\n{skipped} has no pods")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata:
      annotations:
        nucleus.dev/capabilities.allow: CAP_KILL,CAP_CHOWN
        other.example/x: "y"
    spec:
      runtimeClassName: nucleus
      initContainers:
      - name: setup
        image: busybox
      containers:
      - name: web
        image: nginx
        securityContext:
          runAsUser: 1000
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL], add: [NET_BIND_SERVICE, KILL]}
        resources: {limits: {memory: 64Mi}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  jobTemplate:
    spec:
      template:
        metadata: {annotations: {nucleus.dev/no_new_priv: "true"}}
        spec: {containers: [{name: job, image: busybox}]}
"#;

    fn explained(manifest: &str, node: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let (file, config) = (directory.path().join("pod.yaml"), directory.path().join("node.toml"));
        std::fs::write(&file, manifest).unwrap();
        std::fs::write(&config, format!("version = 1\n{node}")).unwrap();
        explain(&file, &Layers::read(None, Some(&config)).unwrap(), true).unwrap()
    }

    #[test]
    fn each_pod_of_a_manifest_is_explained_and_what_is_none_is_named() {
        let report = explained(MANIFEST, "");
        assert!(!report.is_accepted());
        let json = report.json();
        assert_eq!(json["skipped"], json!(["Service web"]));
        let web = &json["pods"][0];
        assert_eq!(web["pod"], "Deployment shop/web; runtimeClassName nucleus");
        assert_eq!(web["settings"]["capabilities.allow"]["from"], "pod");
        assert_eq!(web["containers"][0]["container"], "init container setup");
        let container = &web["containers"][1];
        assert_eq!(
            container["enforced"]["capabilities"], "1: CAP_KILL",
            "what is dropped, added, and allowed"
        );
        assert_eq!(container["enforced"]["no_new_privs"], "yes");
        assert_eq!(container["enforced"]["user"], "1000:0");
        assert_eq!(container["enforced"]["read-only root"], "yes");
        assert_eq!(container["spec"]["linux"]["resources"]["memory"]["limit"], 64 << 20);
        let job = &json["pods"][1];
        assert!(
            job["refused"]
                .as_str()
                .unwrap()
                .contains("\"no_new_privs\" may be meant"),
            "{job}"
        );
        let text = report.to_string();
        assert!(
            text.contains("CronJob nightly") && text.contains("would be refused: annotations"),
            "{text}"
        );
        assert!(text.contains("known on the node alone"), "{text}");
    }

    #[test]
    fn what_a_node_refuses_is_told_for_the_container_in_the_shim_s_words() {
        let report = explained(
            MANIFEST,
            "mode = 'production'\nrequire.landlock_abi = 0\nlandlock.tier = 'none'\n",
        );
        let json = report.json();
        let [setup, web] = [0, 1].map(|index| json["pods"][0]["containers"][index].clone());
        assert!(
            setup["refused"]
                .as_str()
                .unwrap()
                .contains("require.memory_limit = true"),
            "{setup}"
        );
        assert!(web["refused"].is_null(), "{web}");
        let host = r#"{"kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "root", "mountPath": "/host"}]}]}}"#;
        let report = explained(host, "host_paths = 'refuse'\n");
        assert!(report.to_string().contains("the host's root"), "{report}");
    }

    #[test]
    fn digests_of_volumes_are_looked_for_among_the_pod_s() {
        let pod = |name: &str| {
            let digest = "0".repeat(64);
            format!(
                "kind: Pod\nmetadata: {{name: p, annotations: {{nucleus.dev/volume-digest.{name}: \
                 'sha256:{digest}'}}}}\nspec:\n  \
                 volumes: [{{name: app, configMap: {{name: app}}}}]\n  containers:\n  - name: c\n    volumeMounts: \
                 [{{name: app, mountPath: /app, readOnly: true}}]\n  - name: other\n"
            )
        };
        assert!(explained(&pod("app"), "").is_accepted());
        let report = explained(&pod("ap"), "");
        assert!(report.to_string().contains("the pod has no volume \"ap\""), "{report}");
    }

    #[test]
    fn what_is_no_manifest_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pod.yaml");
        let layers = Layers::default();
        for (text, words) in [
            ("a: [", "document 1"),
            ("- just\n- a list\n", "document 1"),
            ("kind: Service\nmetadata: {name: x}\n", "no pods"),
            ("", "no pods"),
            ("kind: Pod\nmetadata: {name: x}\n", "spec.containers"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = chain(&explain(&file, &layers, false).unwrap_err());
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
