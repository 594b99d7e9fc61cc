//! What rendered manifests have in them.

use anyhow::{Context, Result};
use serde_json::Value;

/// The only object of a kind whose name ends so.
pub fn object<'a>(all: &'a [Value], kind: &str, ends: &str) -> Result<&'a Value> {
    let mut found = all.iter().filter(|one| one["kind"] == kind);
    let named = |one: &&Value| {
        one["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.ends_with(ends))
    };
    found
        .find(named)
        .with_context(|| format!("no {kind} …{ends} was rendered"))
}

/// The pod's specification in an object, if it makes pods.
pub fn pod_spec(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => Some(&object["spec"]),
        "DaemonSet" | "Job" => Some(&object["spec"]["template"]["spec"]),
        _ => None,
    }
}

/// All containers of a pod, those before the others first.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let of = |field: &str| spec[field].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers"))
}

/// The words of an argument list.
pub fn words<'a>(container: &'a Value, field: &str) -> Vec<&'a str> {
    let list = container[field].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// The volumes that a container mounts.
pub fn mounted<'a>(spec: &'a Value, container: &Value) -> Vec<&'a Value> {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let names: Vec<&Value> = mounts.map(|mount| &mount["name"]).collect();
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    volumes.filter(|volume| names.contains(&&volume["name"])).collect()
}
