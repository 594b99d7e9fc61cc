//! Objects that more than one behaviour uses.

use serde_json::{Value, json};

use super::store::WEB;

/// A container that serves HTTP on port 80.
pub fn web(name: &str) -> Value {
    json!({"name": name, "image": WEB, "imagePullPolicy": "Never", "ports": [{"containerPort": 80}]})
}

/// A Service for pods that are labelled with its name.
pub fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 80}]},
    })
}
