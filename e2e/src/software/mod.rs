//! The suite `software`: what people run in containers, out of Debian's packages, does under nucleus what it does under
//! runc. Each container has what an ordinary pod has: containerd's seccomp profile, its capabilities, a memory limit,
//! cgroups to read, and a root file system that it may write to.

pub mod image;
mod languages;
mod production;
mod servers;
mod system;

use std::rc::Rc;

use anyhow::Result;
use serde_json::json;

use crate::container::Builder;
use crate::containerd::Version;
use crate::context::{Ctx, Output};
use crate::harness::{self, Behaviour, Choice, Registry, Tally};
use crate::prepare::Tools;
use crate::spec::{self, mount};

/// The suite's name.
pub const NAME: &str = "software";

/// Bytes that a container may have: a JVM sizes itself by it.
const MEMORY: u64 = 512 << 20;

/// Seconds that a server may take to be ready, or to recover: PostgreSQL's own limits alone are of five.
const PATIENCE: u64 = 60;

/// All behaviours of the suite.
pub fn register(registry: &mut Registry) {
    type Add = fn(&mut Registry);
    let subjects: [(&str, Add); _] = [
        ("servers", servers::register),
        ("languages", languages::register),
        ("system", system::register),
        ("production", production::register),
    ];
    for (subject, add) in subjects {
        registry.subject(subject);
        add(registry);
    }
    // Databases and virtual machines start in seconds where the machine does nothing else.
    for behaviour in registry.behaviours() {
        behaviour.be_patient(6);
    }
}

/// Runs them on one containerd: what differs between the versions is none of the software's.
pub async fn run(behaviours: Vec<Behaviour>, choice: &Choice, tools: &Rc<Tools>) -> Result<Tally> {
    let version = choice.versions.first().copied().unwrap_or(Version::V2);
    if let Err(reason) = image::prepare().await {
        println!("skip  {NAME}: its image cannot be made here: {reason:#}");
        return Ok(Tally {
            skipped: behaviours.len() * choice.runtimes.len(),
            ..Tally::default()
        });
    }
    let choice = Choice {
        versions: vec![version],
        ..choice.clone()
    };
    harness::run(behaviours, &choice, tools).await
}

/// A container of Debian's software, as an ordinary pod's.
fn debian(c: &Ctx) -> Result<Builder<'_>> {
    let seccomp = spec::runtime_default()?;
    let container = c.container().root_over(&image::root())?;
    Ok(container.spec(|spec| {
        spec["linux"]["seccomp"] = seccomp;
        spec["linux"]["resources"]["memory"] = json!({"limit": MEMORY});
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["process"]["env"] = json!([spec::PATH, "LC_ALL=C.UTF-8", "HOME=/root", "TERM=dumb"]);
        // Images keep their own /run; a pod has nothing over it.
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != "/run");
        }
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        spec::push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }))
}

/// Runs a script as such a container's first process; it stops at the first command that fails.
async fn script(c: &Ctx, text: &str) -> Result<Output> {
    debian(c)?
        .args(&["bash", "-euo", "pipefail", "-c", text])
        .output()
        .await
}
