//! The policy, carried out in the spec itself: what comes out is still a spec that any runtime could run.

use oci_spec::runtime as oci;

use super::secrets::SECRET_VOLUME;
use super::{Error, capability, seccomp};
use crate::host::Kernel;
use crate::policy::{Decided, Egress, HostPaths, Policy, Proc, Tier, gives_away};
use crate::security::seccomp::named::Named;

/// containerd's CRI plugin says with it what a container is to its pod.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// By their numbers: capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Tightens `spec` to what `policy` allows; what of the profiles `named` it has room for goes into it.
///
/// # Errors
/// What the policy forbids and nobody could tighten.
pub(super) fn spec(spec: &mut oci::Spec, policy: &Policy, named: &mut Vec<Named>) -> Result<(), Error> {
    if let Some(linux) = spec.linux_mut() {
        seccomp::harden(linux, policy, named);
    }
    if policy.require_memory_limit.value {
        require_memory_limit(spec, &policy.require_memory_limit)?;
    }
    if policy.proc.value == Proc::Hidden {
        for mount in spec.mounts_mut().iter_mut().flatten() {
            hide_proc(mount);
        }
    }
    if policy.host_paths.value == HostPaths::Refuse {
        refuse_host_paths(spec, &policy.host_paths)?;
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
    let mut allowed = policy.capabilities.value.bits();
    if policy.egress.value != Egress::Open {
        // With either, what leaves the network namespace is one's own affair: rules can be changed, packets sent past
        // them.
        allowed &= !(1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW);
    }
    if allowed != u64::MAX
        && let Some(sets) = process.capabilities()
    {
        let sets = capability::cut(sets, allowed);
        process.set_capabilities(Some(sets));
    }
}

/// Refuses a host whose kernel is not what is demanded.
pub(super) fn require_kernel(kernel: &Kernel, policy: &Policy) -> Result<(), Error> {
    let refused = |setting, value, by, field| {
        let advice = "run the container on a node that has it, or ask for less";
        Err(Error::Policy {
            setting,
            value,
            by,
            field,
            advice,
        })
    };
    let lockdown = &policy.require_lockdown;
    if kernel.lockdown < lockdown.value {
        let field = format!("this host's lockdown is {}", kernel.lockdown);
        return refused("require.lockdown", lockdown.value.to_string(), lockdown.from, field);
    }
    let modules = &policy.require_lsm;
    match modules.value.0.difference(&kernel.security_modules).next() {
        None => Ok(()),
        Some(missing) => {
            let field = format!("this host has no security module {missing:?}");
            refused("require.lsm", modules.value.to_string(), modules.from, field)
        }
    }
}

/// Makes a mount noexec that the workload could put a program on, or that holds a Secret. A read-only volume stays
/// executable: scripts come in ConfigMaps.
fn forbid_execution(mount: &mut oci::Mount) {
    let options = mount.options().clone().unwrap_or_default();
    let has = |names: &[&str]| options.iter().any(|option| names.contains(&option.as_str()));
    let is_bind = has(&["bind", "rbind"]) || mount.typ().as_deref() == Some("bind");
    let is_new = !is_bind && mount.typ().as_deref() == Some("tmpfs");
    let is_secret = mount
        .source()
        .as_ref()
        .is_some_and(|source| source.to_string_lossy().contains(SECRET_VOLUME));
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

fn hide_proc(mount: &mut oci::Mount) {
    if mount.typ().as_deref() != Some("proc") {
        return;
    }
    let is_other = |option: &&String| !option.starts_with("hidepid=") && !option.starts_with("subset=");
    let mut options: Vec<String> = mount.options().iter().flatten().filter(is_other).cloned().collect();
    options.extend(["hidepid=invisible".to_owned(), "subset=pid".to_owned()]);
    mount.set_options(Some(options));
}

/// By the paths that the spec has; where they lead, the mounts are looked at again once they are open.
fn refuse_host_paths(spec: &oci::Spec, setting: &Decided<HostPaths>) -> Result<(), Error> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let is_bind = |option: &String| option == "bind" || option == "rbind";
        let is_bind = mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(is_bind);
        let Some(source) = mount.source().as_ref().filter(|_| is_bind) else {
            continue;
        };
        if let Some(what) = gives_away(source) {
            return Err(Error::Policy {
                setting: "host_paths",
                value: setting.value.to_string(),
                by: setting.from,
                field: format!("mounts[{index}].source {source:?} is, or leads to, {what}"),
                advice: "mount a directory of the workload's own",
            });
        }
    }
    Ok(())
}

fn is_exec(option: &str) -> bool {
    matches!(option, "exec" | "rexec")
}

/// Whether the container is its pod's sandbox, whose program is containerd's choice: no workload.
pub(super) fn is_sandbox<K: AsRef<str>, V: AsRef<str>>(annotations: impl IntoIterator<Item = (K, V)>) -> bool {
    let mut annotations = annotations.into_iter();
    annotations.any(|(key, kind)| key.as_ref() == CONTAINER_TYPE && kind.as_ref() == "sandbox")
}

fn require_memory_limit(spec: &oci::Spec, setting: &Decided<bool>) -> Result<(), Error> {
    let is_sandbox = is_sandbox(spec.annotations().iter().flatten());
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
