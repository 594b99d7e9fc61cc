//! The suite `task`: what clients of containerd rely on, by subject.

mod capabilities;
mod cgroups;
mod devices;
mod exec;
mod hooks;
mod io;
mod lifecycle;
mod mounts;
mod namespaces;
mod pause;
mod process;
mod signals;
mod terminal;

use crate::harness::Registry;

type Add = fn(&mut Registry);

/// All behaviours of the suite.
pub fn register(registry: &mut Registry) {
    let subjects: [(&str, Add); _] = [
        ("lifecycle", lifecycle::register),
        ("exec", exec::register),
        ("io", io::register),
        ("terminal", terminal::register),
        ("signals", signals::register),
        ("pause", pause::register),
        ("namespaces", namespaces::register),
        ("process", process::register),
        ("capabilities", capabilities::register),
        ("devices", devices::register),
        ("mounts", mounts::register),
        ("cgroups", cgroups::register),
        ("hooks", hooks::register),
    ];
    for (subject, add) in subjects {
        registry.subject(subject);
        add(registry);
    }
}
