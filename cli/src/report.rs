//! What is told, for people and as JSON.

use std::fmt;

use runtime_core::policy::Policy;
use serde_json::{Map, Value, json};

/// What is known of one container.
#[derive(Debug)]
pub struct Report {
    /// Its id and where its bundle is.
    pub about: String,
    /// What was decided.
    pub policy: Policy,
    /// What is enforced: what it is about, and how much of it there is.
    pub enforced: Vec<(&'static str, String)>,
    /// The hardened spec.
    pub spec: Option<Value>,
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "container": self.about,
            "settings": settings(&self.policy),
            "enforced": object(&self.enforced),
            "spec": self.spec,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.about)?;
        write_settings(f, &self.policy)?;
        writeln!(f, "\nenforced")?;
        entries(f, &self.enforced)?;
        match &self.spec {
            Some(spec) => writeln!(f, "\n{spec:#}"),
            None => Ok(()),
        }
    }
}

/// Each setting by its name, for programs.
pub fn settings(policy: &Policy) -> Map<String, Value> {
    let settings = policy.list().into_iter().map(|(name, value, from)| {
        let from = serde_json::to_value(from).unwrap_or_default();
        (name.to_owned(), json!({"value": value, "from": from}))
    });
    settings.collect()
}

/// What is enforced, for programs.
pub fn object(enforced: &[(&'static str, String)]) -> Map<String, Value> {
    let entries = enforced.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    entries.collect()
}

/// Each setting on a line of its own.
pub fn write_settings(f: &mut fmt::Formatter<'_>, policy: &Policy) -> fmt::Result {
    let settings = policy.list();
    let width = settings
        .iter()
        .map(|(_, value, _)| value.len().min(40))
        .max()
        .unwrap_or(0);
    for (name, value, from) in settings {
        writeln!(f, "{name:<27}  {value:<width$}  {from}")?;
    }
    Ok(())
}

/// What is enforced, a line each.
pub fn entries(f: &mut fmt::Formatter<'_>, enforced: &[(&'static str, String)]) -> fmt::Result {
    for (name, value) in enforced {
        writeln!(f, "  {name:<25}  {value}")?;
    }
    Ok(())
}

/// `2: CAP_CHOWN, CAP_KILL`
pub fn capabilities(bits: u64) -> String {
    let names = runtime_core::plan::CAPABILITY_NAMES.iter().enumerate();
    let names: Vec<&str> = names
        .filter(|(number, _)| bits >> number & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => format!("{}: {}", names.len(), names.join(", ")),
    }
}
