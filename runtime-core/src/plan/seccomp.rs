//! The filters of system calls: the spec's, and those that the policy holds beside it.
//!
//! The kernel asks all filters of a process and takes the strictest answer, so one more never gives anything.

use oci_spec::runtime::{self as oci, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag};

use super::Error;
use crate::policy::Policy;
use crate::security::seccomp::named::Named;
use crate::security::seccomp::{self, Filter};

/// Makes the spec say what it can of the policy: the flag that logs, and a first of the profiles `named` where the spec has
/// none of its own. That one is taken out of `named`.
pub(super) fn harden(linux: &mut oci::Linux, policy: &Policy, named: &mut Vec<Named>) {
    if linux.seccomp().is_none() && !named.is_empty() {
        linux.set_seccomp(Some(named.remove(0).profile));
    }
    if policy.seccomp_log_denied.value {
        let own = linux.seccomp_mut().as_mut();
        for profile in own.into_iter().chain(named.iter_mut().map(|named| &mut named.profile)) {
            log_denied(profile);
        }
    }
}

/// The filters of `spec`'s profile and of those `named`, in the order in which they have to be loaded.
///
/// # Errors
/// A profile that cannot be compiled; two that each keep the other from being loaded.
pub(super) fn filters(spec: Option<&LinuxSeccomp>, named: &[Named], policy: &Policy) -> Result<Vec<Filter>, Error> {
    let mut filters = Vec::with_capacity(1 + named.len());
    if let Some(profile) = spec {
        let filter = seccomp::compile(profile)?;
        if filter.uses_notify {
            let advice = "no agent is told; use another action, or a runtime that has it";
            return Err(Error::unsupported("linux.seccomp: SCMP_ACT_NOTIFY", advice));
        }
        filters.push((filter, loads_another(profile)));
    }
    for Named { name, profile } in named {
        let compiled = seccomp::compile(profile).map_err(|source| Error::NamedProfile {
            name: name.clone(),
            source,
        })?;
        if compiled.uses_notify {
            return Err(refused(
                policy,
                format!("profile {name:?} has SCMP_ACT_NOTIFY"),
                "only the profile of the spec can hand calls to an agent",
            ));
        }
        filters.push((compiled, loads_another(profile)));
    }
    if filters.iter().filter(|(_, loads_another)| !loads_another).count() > 1 {
        return Err(refused(
            policy,
            "more than one profile denies seccomp(2), which loads the next one".to_owned(),
            "allow it in all but one; it only ever takes rights away",
        ));
    }
    filters.sort_by_key(|(_, loads_another)| !loads_another);
    Ok(filters.into_iter().map(|(filter, _)| filter).collect())
}

fn refused(policy: &Policy, field: String, advice: &'static str) -> Error {
    Error::Policy {
        setting: "seccomp.profile",
        value: policy.seccomp_profile.value.to_string(),
        by: policy.seccomp_profile.from,
        field,
        advice,
    }
}

/// Whether a process under the profile may call seccomp(2), whatever its arguments.
fn loads_another(profile: &LinuxSeccomp) -> bool {
    let passes = |action: Action| matches!(action, Action::ScmpActAllow | Action::ScmpActLog);
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut rules = rules
        .iter()
        .filter(|rule| rule.names().iter().any(|name| name == "seccomp"));
    match rules.clone().next() {
        None => passes(profile.default_action()),
        // The first rule without conditions is the whole answer.
        Some(_) => rules
            .find(|rule| rule.args().as_ref().is_none_or(Vec::is_empty))
            .is_some_and(|rule| passes(rule.action())),
    }
}

fn log_denied(profile: &mut LinuxSeccomp) {
    // Without a list there is one flag, by runc's default; with a list of ours it has to be in it.
    let given = profile.flags().clone();
    let mut flags = given.unwrap_or_else(|| vec![Flag::SeccompFilterFlagSpecAllow]);
    if !flags.contains(&Flag::SeccompFilterFlagLog) {
        flags.push(Flag::SeccompFilterFlagLog);
    }
    profile.set_flags(Some(flags));
}
