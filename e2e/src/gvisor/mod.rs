//! The suite `gvisor`: nucleus with `runtime = "gvisor"`, on real runsc. The behaviours of `task` that a sentry can
//! have, with a written list of those that it cannot; then what is particular to it.

mod churn;
mod defences;
mod installed;
mod limits;
pub mod pods;
mod settings;
mod trust;
mod volumes;

use std::rc::Rc;

use anyhow::Result;

use crate::containerd::Version;
use crate::context::Runtime;
use crate::harness::{self, Behaviour, Choice, Registry, Tally};
use crate::prepare::{self, Tools};
use crate::task;

pub use installed::Installed;

/// The suite's name.
pub const NAME: &str = "gvisor";

/// A sentry takes longer to start than a native container, and several of them at once on a small machine longer still.
const PATIENCE: u32 = 4;

/// All behaviours of the suite.
pub fn register(registry: &mut Registry) {
    task::register_some(registry, &limits::SUBJECTS);
    let on_systrap = registry.behaviours().len();
    task::register_some(registry, &limits::ON_PTRACE.map(|(subject, _)| subject));
    limits::apply(registry.behaviours());
    for behaviour in &mut registry.behaviours()[on_systrap..] {
        let named = limits::ON_PTRACE
            .into_iter()
            .find(|(subject, _)| *subject == behaviour.subject);
        behaviour.subject = named.map_or(behaviour.subject, |(_, name)| name);
    }
    registry.subject("trust");
    trust::register(registry);
    registry.subject("pods");
    pods::register(registry);
    registry.subject("volumes");
    volumes::register(registry);
    registry.subject("settings");
    settings::register(registry);
    registry.subject("defences");
    defences::register(registry);
    registry.subject("churn");
    churn::register(registry);
    for behaviour in registry.behaviours() {
        behaviour.be_patient(PATIENCE);
    }
}

/// Runs the behaviours on a node whose containers are gVisor's.
pub async fn run(behaviours: Vec<Behaviour>, choice: &Choice, tools: &Rc<Tools>) -> Result<Tally> {
    if !choice.versions.contains(&Version::V2) {
        return Ok(Tally::default());
    }
    let installed = Installed::new(&prepare::gvisor().await?.join("runsc"))?;
    let choice = Choice {
        runtimes: vec![Runtime::Gvisor],
        versions: vec![Version::V2],
        ..choice.clone()
    };
    let is_on_ptrace = |behaviour: &Behaviour| limits::ON_PTRACE.iter().any(|(_, name)| *name == behaviour.subject);
    let (on_ptrace, on_systrap) = behaviours.into_iter().partition::<Vec<_>, _>(is_on_ptrace);
    let mut tally = Tally::default();
    for (behaviours, platform) in [(on_systrap, "systrap"), (on_ptrace, "ptrace")] {
        if !behaviours.iter().any(|one| choice.wants(one)) {
            continue;
        }
        let tools = Tools {
            node: Some(installed.configuration(&format!("gvisor.platform = \"{platform}\""))?),
            ..Tools::clone(tools)
        };
        tally.add(harness::run(behaviours, &choice, &Rc::new(tools)).await?);
    }
    Ok(tally)
}
