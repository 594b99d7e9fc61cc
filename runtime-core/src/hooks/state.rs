//! What a hook is told about its container.

use std::path::Path;

use serde::Serialize;

/// The container's state, as a hook reads it from its stdin (OCI runtime spec, "State").
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// The container's id.
    pub id: &'a str,
    /// creating, created, running or stopped.
    pub status: &'a str,
    /// Init's pid, as the hook's PID namespace numbers it; 0: there is none (any more).
    pub pid: i32,
    /// The bundle directory.
    pub bundle: &'a Path,
    /// The spec's annotations.
    pub annotations: &'a [(String, String)],
}

impl State<'_> {
    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: std::borrow::Cow<'a, str>,
            #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
            annotations: serde_json::Map<String, serde_json::Value>,
        }
        let document = Document {
            oci_version: crate::host::OCI_VERSION_MAX,
            id: self.id,
            status: self.status,
            pid: Some(self.pid).filter(|&pid| pid != 0),
            bundle: self.bundle.to_string_lossy(),
            annotations: self
                .annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into()))
                .collect(),
        };
        serde_json::to_vec(&document).expect("strings and numbers always become JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_the_oci_spec_says() {
        let annotations = [("a".to_owned(), "1".to_owned())];
        let state = State {
            id: "c",
            status: "created",
            pid: 7,
            bundle: Path::new("/b"),
            annotations: &annotations,
        };
        let json: serde_json::Value = serde_json::from_slice(&state.to_json()).unwrap();
        let expected = serde_json::json!({"ociVersion": crate::host::OCI_VERSION_MAX, "id": "c", "status": "created",
            "pid": 7, "bundle": "/b", "annotations": {"a": "1"}});
        assert_eq!(json, expected);
        let stopped = State {
            status: "stopped",
            pid: 0,
            annotations: &[],
            ..state
        };
        let json: serde_json::Value = serde_json::from_slice(&stopped.to_json()).unwrap();
        assert_eq!((json.get("pid"), json.get("annotations")), (None, None));
    }
}
