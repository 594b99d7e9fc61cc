//! Kubernetes' own schema, out of the module that its servers are built from, and objects held against it.
//!
//! Strict as `--validate=strict` is: a field that the schema does not know is an error. What the schema cannot say (the
//! form of names, expressions) is not looked at.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tokio::process::Command;

use crate::prepare::step;

/// A version of Kubernetes: name and module version.
pub const VERSIONS: [(&str, &str); 2] = [("1.34", "v1.34.9"), ("1.37", "v1.37.2")];

/// The definitions of a version.
pub struct Schema {
    definitions: Map<String, Value>,
}

impl Schema {
    /// Fetches a version's schema, or takes it from the module cache.
    pub async fn of(module_version: &str) -> Result<Self> {
        let module = format!("k8s.io/kubernetes@{module_version}");
        let mut download = Command::new("go");
        download
            .args(["mod", "download", "-json", &module])
            .env("GOWORK", "off");
        // Outside of any module: the checksum database answers for what is downloaded.
        download.current_dir(std::env::temp_dir());
        let told: Value = serde_json::from_str(&step(&format!("download {module}"), &mut download).await?)?;
        let directory = told["Dir"].as_str().context("go names no directory")?;
        let path = PathBuf::from(directory).join("api/openapi-spec/swagger.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut swagger: Value = serde_json::from_slice(&text)?;
        match swagger["definitions"].take() {
            Value::Object(definitions) => Ok(Self { definitions }),
            _ => bail!("{} has no definitions", path.display()),
        }
    }

    /// Holds an object against the definition of its kind.
    pub fn check(&self, object: &Value) -> Result<()> {
        let kind = object["kind"].as_str().context("an object without a kind")?;
        let api = object["apiVersion"]
            .as_str()
            .context("an object without an apiVersion")?;
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let named = |definition: &Value| {
            let kinds = definition
                .get("x-kubernetes-group-version-kind")
                .and_then(Value::as_array);
            kinds
                .into_iter()
                .flatten()
                .any(|one| one["kind"] == kind && one["group"] == group && one["version"] == version)
        };
        let definition = self.definitions.values().find(|one| named(one));
        let definition = definition.with_context(|| format!("this version has no {api} {kind}"))?;
        self.hold(object, definition, kind)
    }

    fn hold(&self, value: &Value, schema: &Value, path: &str) -> Result<()> {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.trim_start_matches("#/definitions/");
            let definition = self
                .definitions
                .get(name)
                .with_context(|| format!("no definition {name}"))?;
            return self.hold(value, definition, path);
        }
        if schema["format"] == "int-or-string" || name_is_quantity(schema) {
            return match value {
                Value::String(_) | Value::Number(_) => Ok(()),
                _ => bail!("{path}: {value} is neither a number nor a string"),
            };
        }
        let right = match schema.get("type").and_then(Value::as_str) {
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => true,
        };
        if !right {
            bail!("{path}: {value} is not of type {}", schema["type"]);
        }
        if let Some(items) = value.as_array() {
            for (number, item) in items.iter().enumerate() {
                self.hold(item, &schema["items"], &format!("{path}[{number}]"))?;
            }
        }
        if let Some(fields) = value.as_object() {
            self.hold_fields(fields, schema, path)?;
        }
        Ok(())
    }

    fn hold_fields(&self, fields: &Map<String, Value>, schema: &Value, path: &str) -> Result<()> {
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                bail!("{path}: {name} is missing");
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let place = format!("{path}.{name}");
            match (
                properties.and_then(|all| all.get(name)),
                schema.get("additionalProperties"),
            ) {
                (Some(property), _) => self.hold(value, property, &place)?,
                (None, Some(any)) => self.hold(value, any, &place)?,
                (None, None) if properties.is_none() => {}
                (None, None) => bail!("{place}: there is no such field"),
            }
        }
        Ok(())
    }
}

/// A quantity is a string in the schema, and a number in what everybody writes.
fn name_is_quantity(schema: &Value) -> bool {
    let words = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    words.starts_with("Quantity is a fixed-point representation")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Schema;

    #[test]
    fn a_field_that_is_unknown_or_missing_or_of_another_type_is_an_error() {
        let definitions = json!({"T": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "parts": {"type": "array", "items": {"$ref": "#/definitions/P"}},
            },
            "x-kubernetes-group-version-kind": [{"group": "g", "version": "v1", "kind": "T"}],
        }, "P": {"type": "object", "properties": {"size": {"type": "integer"}}}});
        let schema = Schema {
            definitions: definitions.as_object().unwrap().clone(),
        };
        let of = |fields: serde_json::Value| {
            let mut object = json!({"kind": "T", "apiVersion": "g/v1"});
            object
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            // The real definitions have these two.
            let mut schema = Schema {
                definitions: schema.definitions.clone(),
            };
            schema.definitions["T"]["properties"]["kind"] = json!({"type": "string"});
            schema.definitions["T"]["properties"]["apiVersion"] = json!({"type": "string"});
            schema.check(&object)
        };
        of(json!({"name": "x", "parts": [{"size": 1}]})).unwrap();
        for wrong in [
            json!({}),
            json!({"name": 1}),
            json!({"name": "x", "nmae": "x"}),
            json!({"name": "x", "parts": [{"size": "1"}]}),
            json!({"name": "x", "parts": [{"sise": 1}]}),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
