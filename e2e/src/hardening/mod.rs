//! The suite `hardening`: attacks that have worked elsewhere, tried on containers of ours, each with a canary on the
//! host that must be neither read nor changed. Where the defence can be taken away, the same attack is shown to work
//! without it: so it is known to be one.

mod attest;
mod canary;
mod control;
mod entering;
mod entrypoints;
mod identity;
mod images;
mod kernel;
mod metadata;
mod network;
mod parent;
mod privileges;
mod races;
mod reach;
mod rules;
mod secrets;
mod syscalls;
mod volumes;

// What a sentry's container is tried with as well.
pub use network::{Network, reaches};
pub use secrets::{links_that_lead_nowhere, mounted, secret_volume};

use std::cell::Cell;

use anyhow::Result;

use crate::context::Ctx;
use crate::harness::Registry;

/// The suite's name.
pub const NAME: &str = "hardening";

type Add = fn(&mut Registry);

/// All attacks.
pub fn register(registry: &mut Registry) {
    let subjects: [(&str, Add); _] = [
        ("images", images::register),
        ("races", races::register),
        ("entering", entering::register),
        ("entrypoints", entrypoints::register),
        ("parent", parent::register),
        ("kernel", kernel::register),
        ("control", control::register),
        ("metadata", metadata::register),
        ("identity", identity::register),
        ("privileges", privileges::register),
        ("syscalls", syscalls::register),
        ("rules", rules::register),
        ("network", network::register),
        ("secrets", secrets::register),
        ("attest", attest::register),
        ("volumes", volumes::register),
        ("reach", reach::register),
    ];
    for (subject, add) in subjects {
        registry.subject(subject);
        add(registry);
    }
}

thread_local! {
    static ATTACKS: Cell<usize> = const { Cell::new(0) };
    static SHOWN: Cell<usize> = const { Cell::new(0) };
    static CANARIES: Cell<usize> = const { Cell::new(0) };
}

/// Counts attempts that a defence stood against.
fn attacked(count: usize) {
    ATTACKS.set(ATTACKS.get() + count);
}

/// Counts attempts that succeeded where the defence was taken away.
fn shown(count: usize) {
    SHOWN.set(SHOWN.get() + count);
}

/// What an attack came to. Ours has to stand; where the yardstick falls (a distribution's runc may be old), the attack
/// is shown to be one.
fn judge(c: &Ctx, outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(_) if !c.is_nucleus() => {
            shown(1);
            Ok(())
        }
        outcome => outcome,
    }
}

/// What was tried, for the end of the run.
pub fn summary() -> String {
    format!(
        "{} attacks, {} times shown to work without the defence, {} looks at canaries",
        ATTACKS.get(),
        SHOWN.get(),
        CANARIES.get()
    )
}
