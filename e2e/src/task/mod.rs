//! The suite `task`: what clients of containerd rely on, by subject.

mod lifecycle;

use crate::harness::Registry;

/// All behaviours of the suite.
pub fn register(registry: &mut Registry) {
    for (subject, add) in [("lifecycle", lifecycle::register as fn(&mut Registry))] {
        registry.subject(subject);
        add(registry);
    }
}
