//! The suite `gvisor`: nucleus with `runtime = "gvisor"`, on real runsc. The behaviours of `task` that a sentry can have, with a
//! written list of those that it cannot; then what is particular to it.

mod churn;
mod installed;
mod limits;
mod pods;
mod trust;

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
    limits::apply(registry.behaviours());
    registry.subject("trust");
    trust::register(registry);
    registry.subject("pods");
    pods::register(registry);
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
    let tools = Tools {
        node: Some(installed.configuration("")?),
        ..Tools::clone(tools)
    };
    let choice = Choice {
        runtimes: vec![Runtime::Gvisor],
        versions: vec![Version::V2],
        ..choice.clone()
    };
    harness::run(behaviours, &choice, &Rc::new(tools)).await
}
