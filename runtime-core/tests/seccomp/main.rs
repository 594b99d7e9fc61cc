//! The compiler of system call filters: what its programs say, in an interpreter and under the real kernel, beside what
//! libseccomp says.
#![allow(missing_docs, clippy::unwrap_used)]

mod cache;
mod interpreter;
mod kernel;
mod meaning;
mod oracle;
mod random;
mod reference;
mod refusals;
mod speed;
mod tables;

use oci_spec::runtime::LinuxSeccomp;
use runtime_core::security::seccomp::{Filter, Machine, compile_for};
use serde_json::Value;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;

const fn errno(errno: i32) -> u32 {
    0x0005_0000 | errno as u32
}

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compiled(json: Value) -> Filter {
    compile_for(&profile(json), Machine::X86_64).unwrap()
}

/// Profiles as clients send them: see profiles/README.md.
fn known() -> [(&'static str, LinuxSeccomp); 3] {
    [
        ("containerd", include_str!("profiles/containerd.json")),
        (
            "containerd, all capabilities",
            include_str!("profiles/containerd-all-capabilities.json"),
        ),
        ("docker", include_str!("profiles/docker.json")),
    ]
    .map(|(name, json)| (name, serde_json::from_str(json).unwrap()))
}
