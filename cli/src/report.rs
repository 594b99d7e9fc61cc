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
        let settings = self.policy.list().into_iter().map(|(name, value, from)| {
            let from = serde_json::to_value(from).unwrap_or_default();
            (name.to_owned(), json!({"value": value, "from": from}))
        });
        let enforced = self
            .enforced
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)));
        json!({
            "container": self.about,
            "settings": settings.collect::<Map<_, _>>(),
            "enforced": enforced.collect::<Map<_, _>>(),
            "spec": self.spec,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.about)?;
        let settings = self.policy.list();
        let width = settings
            .iter()
            .map(|(_, value, _)| value.len().min(40))
            .max()
            .unwrap_or(0);
        for (name, value, from) in settings {
            writeln!(f, "{name:<27}  {value:<width$}  {from}")?;
        }
        writeln!(f, "\nenforced")?;
        for (name, value) in &self.enforced {
            writeln!(f, "  {name:<25}  {value}")?;
        }
        match &self.spec {
            Some(spec) => writeln!(f, "\n{spec:#}"),
            None => Ok(()),
        }
    }
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
