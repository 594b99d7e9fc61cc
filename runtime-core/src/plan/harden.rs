//! The policy, carried out in the spec itself: what comes out is still a spec that any runtime could run.

use oci_spec::runtime as oci;

use super::{Error, capability};
use crate::policy::{Decided, Policy};

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
