//! The policy, carried out in the spec itself: what comes out is still a spec that any runtime could run.

use oci_spec::runtime as oci;

use super::{Error, capability};
use crate::policy::{Decided, Policy, Tier};

/// containerd's CRI plugin says with it what a container is to its pod.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// Tightens `spec` to what `policy` allows.
///
/// # Errors
/// What the policy forbids and nobody could tighten.
pub(super) fn spec(spec: &mut oci::Spec, policy: &Policy) -> Result<(), Error> {
    if policy.require_memory_limit.value {
        require_memory_limit(spec, &policy.require_memory_limit)?;
    }
    if policy.landlock_tier.value >= Tier::Hardened {
        for mount in spec.mounts_mut().iter_mut().flatten() {
            forbid_execution(mount);
        }
    }
    if let Some(given) = spec.process_mut() {
        process(given, policy);
    }
    Ok(())
}

/// Tightens a process, init's or an exec's.
pub(super) fn process(process: &mut oci::Process, policy: &Policy) {
    if policy.no_new_privs.value {
        process.set_no_new_privileges(Some(true));
    }
    let allowed = policy.capabilities.value.bits();
    if allowed != u64::MAX
        && let Some(sets) = process.capabilities()
    {
        let sets = capability::cut(sets, allowed);
        process.set_capabilities(Some(sets));
    }
}

/// Makes a mount noexec that the workload could put a program on, or that holds a Secret. A read-only volume stays
/// executable: scripts come in ConfigMaps.
fn forbid_execution(mount: &mut oci::Mount) {
    const SECRET: &str = "/volumes/kubernetes.io~secret/";
    let options = mount.options().clone().unwrap_or_default();
    let has = |names: &[&str]| options.iter().any(|option| names.contains(&option.as_str()));
    let is_bind = has(&["bind", "rbind"]) || mount.typ().as_deref() == Some("bind");
    let is_new = !is_bind && mount.typ().as_deref() == Some("tmpfs");
    let is_secret = mount
        .source()
        .as_ref()
        .is_some_and(|source| source.to_string_lossy().contains(SECRET));
    if !(is_new || (is_bind && (is_secret || !has(&["ro", "rro"])))) {
        return;
    }
    let mut options: Vec<String> = options.iter().filter(|option| !is_exec(option)).cloned().collect();
    options.push("noexec".into());
    if has(&["rbind"]) {
        options.push("rnoexec".into());
    }
    mount.set_options(Some(options));
}

fn is_exec(option: &str) -> bool {
    matches!(option, "exec" | "rexec")
}

fn require_memory_limit(spec: &oci::Spec, setting: &Decided<bool>) -> Result<(), Error> {
    let is_sandbox = spec
        .annotations()
        .as_ref()
        .and_then(|annotations| annotations.get(CONTAINER_TYPE))
        .is_some_and(|kind| kind == "sandbox");
    let limit = || {
        let resources = spec.linux().as_ref()?.resources().as_ref()?;
        resources.memory().as_ref()?.limit()
    };
    if is_sandbox || limit().is_some_and(|limit| limit > 0) {
        return Ok(());
    }
    Err(Error::Policy {
        setting: "require.memory_limit",
        value: setting.value.to_string(),
        by: setting.from,
        field: "linux.resources.memory.limit".into(),
        advice: "give the container a memory limit",
    })
}
