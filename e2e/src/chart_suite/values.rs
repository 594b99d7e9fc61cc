//! `values.yaml` as its reader sees it: each value with its default and the comment above it. The README's table is
//! made of it.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::helm::chart;

/// One value.
pub struct Entry {
    /// `a.b.c`.
    pub path: String,
    pub default: String,
    pub comment: String,
}

const BEGIN: &str = "<!-- values: made from values.yaml by UPDATE_DOCS=1 cargo e2e test chart -k README -->\n";
const END: &str = "<!-- end of values -->\n";

/// Reads the file by its lines: two spaces a level, a leaf on one line.
pub fn entries() -> Result<Vec<Entry>> {
    let path = chart().join("values.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut parents: Vec<&str> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(words) = bare.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let Some((name, value)) = bare.split_once(':') else {
            comment.clear();
            continue;
        };
        parents.truncate((line.len() - bare.len()) / 2);
        if value.trim().is_empty() {
            parents.push(name);
            comment.clear();
            continue;
        }
        let mut path = parents.clone();
        path.push(name);
        if comment.is_empty() {
            bail!("{} has no comment in values.yaml", path.join("."));
        }
        found.push(Entry {
            path: path.join("."),
            default: value.trim().to_owned(),
            comment: comment.join(" "),
        });
        comment.clear();
    }
    Ok(found)
}

/// The README's part about values is what values.yaml says; `UPDATE_DOCS=1` makes it so.
pub fn readme() -> Result<()> {
    let mut table = String::from("| value | default | what |\n|---|---|---|\n");
    for entry in entries()? {
        let words = entry.comment.replace('|', "\\|");
        table.push_str(&format!("| `{}` | `{}` | {words} |\n", entry.path, entry.default));
    }
    let path = chart().join("README.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (head, rest) = text
        .split_once(BEGIN)
        .context("README.md has no mark before its values")?;
    let (_, tail) = rest.split_once(END).context("README.md has no mark after its values")?;
    let wanted = format!("{head}{BEGIN}{table}{END}{tail}");
    if text == wanted {
        return Ok(());
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(&path, wanted).with_context(|| format!("write {}", path.display()));
    }
    bail!("charts/nucleus/README.md is not what values.yaml says: UPDATE_DOCS=1 cargo e2e test chart -k README")
}

/// Every value has a place in the schema, and the schema has none that is no value.
pub fn schema() -> Result<()> {
    let path = chart().join("values.schema.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let schema: Value = serde_json::from_str(&text)?;
    let entries = entries()?;
    for entry in &entries {
        let pointer: String = entry
            .path
            .split('.')
            .map(|part| format!("/properties/{part}"))
            .collect();
        schema
            .pointer(&pointer)
            .with_context(|| format!("values.schema.json does not know {}", entry.path))?;
    }
    let mut waiting = vec![(String::new(), &schema)];
    while let Some((path, place)) = waiting.pop() {
        let Some(properties) = place.get("properties").and_then(Value::as_object) else {
            continue;
        };
        if place["additionalProperties"] != Value::Bool(false) {
            bail!("values.schema.json lets anything into `{path}`");
        }
        for (name, below) in properties {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let known =
                |entry: &super::values::Entry| entry.path == path || entry.path.starts_with(&format!("{path}."));
            if entries.iter().any(|entry| entry.path == path) {
                continue;
            }
            // helm puts `global` into every chart's values.
            if path != "global" && !entries.iter().any(known) {
                bail!("values.schema.json has `{path}`, which values.yaml does not");
            }
            waiting.push((path, below));
        }
    }
    Ok(())
}
