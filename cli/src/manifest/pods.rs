//! The pods of a manifest: of workloads their template, of lists each item.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("document {number} is no YAML")]
    Yaml {
        number: usize,
        source: serde_yaml_ng::Error,
    },
    #[error("document {number} is no Kubernetes object: it has no `kind`")]
    NoKind { number: usize },
    #[error("{name} has no {field}")]
    Missing { name: String, field: &'static str },
    #[error("{name}: the annotation {annotation:?} is no text: put it between quotation marks")]
    Annotation { name: String, annotation: String },
    #[error("there are no pods in it{}", skipped.iter().map(|name| format!(", only {name}")).collect::<String>())]
    None { skipped: Vec<String> },
}

/// A pod, or the template of pods.
#[derive(Debug)]
pub struct Pod {
    /// `Deployment shop/web`
    pub name: String,
    pub annotations: BTreeMap<String, String>,
    pub spec: Value,
}

/// What is in a manifest.
#[derive(Debug, Default)]
pub struct Found {
    pub pods: Vec<Pod>,
    /// What has no pods, by its name.
    pub skipped: Vec<String>,
}

impl Pod {
    /// Its containers, each with what it is to the pod.
    pub fn containers(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let of = |field: &str, kind| {
            let list = self.spec[field].as_array().into_iter().flatten();
            list.map(move |container| (kind, container))
        };
        of("initContainers", "init container")
            .chain(of("containers", "container"))
            .chain(of("ephemeralContainers", "ephemeral container"))
    }

    /// The names of its volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let volumes = self.spec["volumes"].as_array().into_iter().flatten();
        volumes.filter_map(|volume| volume["name"].as_str())
    }
}

/// All pods of `text`: YAML, or JSON, which is YAML too.
pub fn find(text: &str) -> Result<Found, Error> {
    let mut found = Found::default();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let value = Value::deserialize(document).map_err(|source| Error::Yaml { number, source })?;
        // What stands before the first `---`, or after the last.
        if !value.is_null() {
            take(&value, number, &mut found)?;
        }
    }
    match found.pods.is_empty() {
        true => Err(Error::None { skipped: found.skipped }),
        false => Ok(found),
    }
}

fn take(object: &Value, number: usize, found: &mut Found) -> Result<(), Error> {
    let kind = object["kind"].as_str().ok_or(Error::NoKind { number })?;
    if let (true, Some(items)) = (kind.ends_with("List"), object["items"].as_array()) {
        return items.iter().try_for_each(|item| take(item, number, found));
    }
    let metadata = &object["metadata"];
    let own = metadata["name"]
        .as_str()
        .or(metadata["generateName"].as_str())
        .unwrap_or("without a name");
    let name = match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{own}"),
        None => format!("{kind} {own}"),
    };
    let template = match kind {
        "Pod" => object,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            &object["spec"]["template"]
        }
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        "PodTemplate" => &object["template"],
        _ => {
            found.skipped.push(name);
            return Ok(());
        }
    };
    let spec = &template["spec"];
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        let field = "spec.containers";
        return Err(Error::Missing { name, field });
    }
    let mut annotations = BTreeMap::new();
    for (annotation, value) in template["metadata"]["annotations"].as_object().into_iter().flatten() {
        let Some(value) = value.as_str() else {
            // The API server refuses it too.
            let annotation = annotation.clone();
            return Err(Error::Annotation { name, annotation });
        };
        annotations.insert(annotation.clone(), value.to_owned());
    }
    found.pods.push(Pod {
        name,
        annotations,
        spec: spec.clone(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_workload_and_lists_of_them_have_pods() {
        let spec = "spec: {containers: [{name: c}]}";
        for kind in [
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "ReplicationController",
            "Job",
        ] {
            let found = find(&format!(
                "kind: {kind}\nmetadata: {{name: x}}\nspec: {{template: {{{spec}}}}}\n"
            ))
            .unwrap();
            assert_eq!(found.pods[0].name, format!("{kind} x"));
        }
        let list = format!(
            "kind: List\nitems:\n- {{kind: Pod, metadata: {{generateName: a-}}, {spec}}}\n- {{kind: Secret}}\n"
        );
        let found = find(&list).unwrap();
        assert_eq!(
            (found.pods[0].name.as_str(), found.skipped),
            ("Pod a-", vec!["Secret without a name".to_owned()])
        );
    }

    #[test]
    fn an_annotation_that_the_api_server_would_refuse_is_an_error() {
        let pod =
            "kind: Pod\nmetadata: {name: x, annotations: {nucleus.dev/no_new_privs: true}}\nspec: {containers: [{}]}\n";
        let error = find(pod).unwrap_err().to_string();
        assert!(error.contains("between quotation marks"), "{error}");
    }
}
