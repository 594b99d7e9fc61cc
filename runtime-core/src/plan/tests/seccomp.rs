//! Filters of the spec and of the policy.

use super::*;
use crate::policy::{self, Layer, toml};
use crate::security::seccomp::named::Named;
use crate::security::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW};

fn under(options: &str, named: Vec<(&str, Value)>, own: Option<Value>) -> Result<Plan, String> {
    let mut layer = Layer::default();
    for entry in toml::parse(options).unwrap() {
        layer.set_entry("test", &entry).unwrap();
    }
    let named = named.into_iter().map(|(name, profile)| Named {
        name: name.into(),
        profile: serde_json::from_value(profile).unwrap(),
    });
    let request = Request {
        id: "c1".into(),
        policy: policy::resolve(&Layer::default(), &layer, []).unwrap(),
        seccomp_profiles: named.collect(),
        ..Request::default()
    };
    match own {
        Some(own) => translated_with(with("/linux/seccomp", own), &request),
        None => translated_with(base(), &request),
    }
}

/// What allows everything but `name`.
fn without(name: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO"}]})
}

#[test]
fn a_profile_of_the_policy_s_goes_into_a_spec_without_one_and_beside_one() {
    let named = || vec![("web", without("mkdir"))];
    let alone = under("", named(), None).unwrap();
    assert_eq!(alone.process.seccomp.len(), 1);
    assert!(alone.spec.linux().as_ref().unwrap().seccomp().is_some());
    let beside = under("", named(), Some(without("rmdir"))).unwrap();
    assert_eq!(beside.process.seccomp.len(), 2);
    assert!(under("", vec![], None).unwrap().process.seccomp.is_empty());
}

#[test]
fn who_denies_seccomp_is_loaded_last_and_there_is_only_one_such() {
    let closed = without("seccomp");
    for (own, named) in [(closed.clone(), without("mkdir")), (without("mkdir"), closed.clone())] {
        let plan = under("", vec![("web", named)], Some(own)).unwrap();
        let last = crate::security::seccomp::compile(&serde_json::from_value(closed.clone()).unwrap()).unwrap();
        assert_eq!(plan.process.seccomp[1], last);
    }
    let error = under("", vec![("web", closed.clone())], Some(closed)).unwrap_err();
    assert!(error.contains("more than one profile denies seccomp(2)"), "{error}");
}

#[test]
fn denied_calls_are_logged_where_the_policy_says_so() {
    let flags = |options: &str, own: Value| {
        let plan = under(options, vec![("web", without("mkdir"))], Some(own)).unwrap();
        plan.process
            .seccomp
            .iter()
            .map(|filter| filter.flags)
            .collect::<Vec<_>>()
    };
    let log = "seccomp.log_denied = true";
    assert_eq!(flags("", without("rmdir")), [FLAG_SPEC_ALLOW; 2]);
    assert_eq!(flags(log, without("rmdir")), [FLAG_LOG | FLAG_SPEC_ALLOW; 2]);
    let mut own = without("rmdir");
    own["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    assert_eq!(flags(log, own), [FLAG_LOG, FLAG_LOG | FLAG_SPEC_ALLOW]);
}

#[test]
fn what_of_a_profile_cannot_be_honoured_is_told_by_its_name() {
    let bad = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000});
    let error = under("", vec![("web", bad)], Some(without("mkdir"))).unwrap_err();
    assert_eq!(error, "seccomp.profile: profile \"web\"");
    let mut agent = without("mkdir");
    agent["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
    agent["listenerPath"] = json!("/run/agent");
    let error = under("", vec![("web", agent)], Some(without("mkdir"))).unwrap_err();
    assert!(error.contains("profile \"web\" has SCMP_ACT_NOTIFY"), "{error}");
}

#[test]
fn an_agent_is_who_the_spec_names_and_its_filter_is_loaded_last() {
    let mut own = without("chown");
    own["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
    own["listenerPath"] = json!("/run/agent");
    own["listenerMetadata"] = json!("for the agent");
    let plan = under("", vec![("web", without("mkdir"))], Some(own.clone())).unwrap();
    let (path, metadata) = ("/run/agent".into(), "for the agent".to_owned());
    assert_eq!(plan.process.listener, Some(Listener::Agent { path, metadata }));
    let listens: Vec<_> = plan.process.seccomp.iter().map(|filter| filter.uses_notify).collect();
    assert_eq!(listens, [false, true]);
    let recorded = "[seccomp]\nmode = 'record'\nrecord_to = '/var/lib/p'\n";
    assert!(
        under(recorded, vec![], Some(own))
            .unwrap_err()
            .contains("a process has one listener")
    );
}

#[test]
fn recording_is_for_who_the_node_gives_a_directory_and_no_filter_is_lost_by_it() {
    let error = under("seccomp.mode = 'record'", vec![], None).unwrap_err();
    assert!(error.contains("seccomp.record_to is empty"), "{error}");
    let recorded = "[seccomp]\nmode = 'record'\nrecord_to = '/var/lib/p'\n";
    let plan = under(recorded, vec![("web", without("mkdir"))], Some(without("rmdir"))).unwrap();
    assert_eq!(plan.process.seccomp.len(), 3);
    assert!(plan.process.seccomp[2].uses_notify);
    let error = under(&format!("init = true\n{recorded}"), vec![], None).unwrap_err();
    assert!(error.contains("init = true"), "{error}");
    let error = under(recorded, vec![], Some(without("seccomp"))).unwrap_err();
    assert!(error.contains("in all while recording"), "{error}");
}
