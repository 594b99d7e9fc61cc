//! The filters of system calls: the spec's, and those that the policy holds beside it.
//!
//! The kernel asks all filters of a process and takes the strictest answer, so one more never gives anything.

use oci_spec::runtime::{self as oci, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag};

use super::{Error, Listener, path};
use crate::policy::{Policy, Ports, SeccompMode};
use crate::security::seccomp::named::{self, Named};
use crate::security::seccomp::{self, Filter, record};

/// Makes the spec say what it can of the policy: the flag that logs, and a first of the profiles `named` where the spec
/// has none of its own. That one is taken out of `named`.
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

/// The filters of `spec`'s profile and of those `named`, in the order in which they have to be loaded, and who answers
/// for what one of them asks about.
///
/// # Errors
/// A profile that cannot be compiled; two that each keep the other from being loaded.
pub(super) fn filters(
    spec: Option<&LinuxSeccomp>,
    named: &[Named],
    policy: &Policy,
) -> Result<(Vec<Filter>, Option<Listener>), Error> {
    let mut listener = None;
    let mut filters = Vec::with_capacity(1 + named.len());
    if let Some(profile) = spec {
        let filter = seccomp::compile(profile)?;
        if filter.uses_notify {
            listener = Some(agent(profile)?);
        }
        // Who is asked about calls is there last: none of our own calls is to wait for an answer.
        let loads_another = !filter.uses_notify && loads_another(profile);
        filters.push((filter, loads_another));
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
    if policy.landlock_tcp_bind.value != Ports::Any || policy.landlock_tcp_connect.value != Ports::Any {
        filters.push((seccomp::compile(&named::tcp_alone())?, true));
    }
    if policy.seccomp_mode.value == SeccompMode::Record {
        listener = Some(recorder(policy, listener.is_some())?);
        filters.push((record::filter(), false));
    }
    if listener.is_some() && policy.init.value {
        return Err(Error::Policy {
            setting: "init",
            value: policy.init.value.to_string(),
            by: policy.init.from,
            field: "linux.seccomp: SCMP_ACT_NOTIFY, or seccomp.mode = \"record\"".to_owned(),
            advice: "the listener is the first process's, which is not the workload then; take one of the two",
        });
    }
    if filters.iter().filter(|(_, loads_another)| !loads_another).count() > 1 {
        return Err(refused(
            policy,
            "more than one profile denies seccomp(2), which loads the next one, or asks about it".to_owned(),
            "allow it in all but one, and in all while recording; it only ever takes rights away",
        ));
    }
    filters.sort_by_key(|(_, loads_another)| !loads_another);
    Ok((filters.into_iter().map(|(filter, _)| filter).collect(), listener))
}

/// The agent that the spec names. Without a path the profile was refused.
fn agent(profile: &LinuxSeccomp) -> Result<Listener, Error> {
    const FIELD: &str = "linux.seccomp.listenerPath";
    let given = profile.listener_path().clone().unwrap_or_default();
    path::check_absolute(&FIELD, path::text(&FIELD, &given)?)?;
    Ok(Listener::Agent {
        path: given,
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
    })
}

fn recorder(policy: &Policy, has_agent: bool) -> Result<Listener, Error> {
    let refused = |field: &str, advice| {
        Err(Error::Policy {
            setting: "seccomp.mode",
            value: policy.seccomp_mode.value.to_string(),
            by: policy.seccomp_mode.from,
            field: field.to_owned(),
            advice,
        })
    };
    if has_agent {
        return refused(
            "linux.seccomp: SCMP_ACT_NOTIFY",
            "a process has one listener; record without the agent",
        );
    }
    match policy.seccomp_record_to.value.0.as_str() {
        "" => refused(
            "seccomp.record_to is empty",
            "the node's configuration or the handler's options have to name a directory for recorded profiles",
        ),
        directory => Ok(Listener::Recorder {
            directory: directory.into(),
        }),
    }
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
