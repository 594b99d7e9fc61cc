//! The suite `task`: what clients of containerd rely on, by subject.

mod audit;
mod bad_input;
mod capabilities;
mod cgroups;
mod check;
mod crash;
mod ctr;
mod delete;
mod devices;
mod events;
mod exec;
mod explain;
mod grouping;
mod hooks;
pub mod info;
mod init;
mod io;
mod labels;
mod landlock;
mod lifecycle;
pub mod mounts;
mod namespaces;
mod pause;
pub mod policy;
mod process;
mod resources;
mod seccomp;
mod shim;
mod signals;
mod stats;
mod terminal;
mod update;

use crate::harness::Registry;

type Add = fn(&mut Registry);

/// The suite's subjects.
const SUBJECTS: &[(&str, Add)] = &[
    ("lifecycle", lifecycle::register),
    ("exec", exec::register),
    ("io", io::register),
    ("terminal", terminal::register),
    ("signals", signals::register),
    ("pause", pause::register),
    ("namespaces", namespaces::register),
    ("process", process::register),
    ("capabilities", capabilities::register),
    ("policy", policy::register),
    ("explain", explain::register),
    ("audit", audit::register),
    ("seccomp", seccomp::register),
    ("landlock", landlock::register),
    ("labels", labels::register),
    ("init", init::register),
    ("devices", devices::register),
    ("mounts", mounts::register),
    ("cgroups", cgroups::register),
    ("resources", resources::register),
    ("hooks", hooks::register),
    ("shim", shim::register),
    ("update", update::register),
    ("stats", stats::register),
    ("events", events::register),
    ("bad_input", bad_input::register),
    ("crash", crash::register),
    ("delete", delete::register),
    ("grouping", grouping::register),
    ("info", info::register),
    ("check", check::register),
    ("ctr", ctr::register),
];

/// All behaviours of the suite.
pub fn register(registry: &mut Registry) {
    for (subject, add) in SUBJECTS {
        registry.subject(subject);
        add(registry);
    }
}

/// Those of some subjects.
pub fn register_some(registry: &mut Registry, wanted: &[&str]) {
    for (subject, add) in SUBJECTS.iter().filter(|(subject, _)| wanted.contains(subject)) {
        registry.subject(subject);
        add(registry);
    }
}
