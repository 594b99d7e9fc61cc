//! What goes into the audit trail, and when: before it is done, so that what cannot be written down is not done.

use runtime_core::audit::{self, Decision, Event};
use runtime_core::policy::{Audit, Origin, Policy};
use runtime_core::{plan, policy};
use serde_json::{Map, Value, json};

use super::Error;
use crate::service::errors::chain;
use crate::shim::Shim;

/// A container's, or an exec'd process's.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The shim that runs it.
    pub shim: &'a Shim,
    /// The container.
    pub id: &'a str,
    /// The process in it.
    pub exec: Option<&'a str>,
}

impl<'a> Subject<'a> {
    fn event(&self, decision: Decision) -> Event<'a> {
        Event {
            event: if self.exec.is_some() { "exec" } else { "create" },
            namespace: &self.shim.namespace,
            group: &self.shim.owner.group,
            container: self.id,
            process: self.exec,
            decision,
            control: None,
            reason: None,
            detail: None,
        }
    }

    /// It is going to be done, by this user; `policy` is told of a container.
    pub fn allow(&self, policy: &Policy, process: &plan::Process) -> Result<(), Error> {
        let mut detail = json!({"user": process.uid, "group": process.gid});
        if self.exec.is_none() {
            detail["policy"] = decided(policy);
        }
        let event = Event {
            detail: Some(detail),
            ..self.event(Decision::Allowed)
        };
        audit::write(&policy.audit.value, &event).map_err(|source| Error::Audit {
            id: self.id.to_owned(),
            source,
        })
    }

    /// It was refused, or could not be done. That it is not done is certain already: without a trail it is logged.
    pub fn fail(&self, sink: &Audit, error: &Error) {
        let event = Event {
            control: control(error),
            reason: Some(chain(error)),
            ..self.event(if is_refusal(error) {
                Decision::Refused
            } else {
                Decision::Failed
            })
        };
        self.log(sink, &event);
    }

    /// It goes on with mounts that are not as they were meant.
    pub fn differs(&self, sink: &Audit, differences: &[String]) {
        if differences.is_empty() {
            return;
        }
        let reason = differences.join("; ");
        log::warn!("mounts of container {} are not as they were meant: {reason}", self.id);
        let event = Event {
            event: "mounts",
            control: Some("mount_audit"),
            reason: Some(reason),
            ..self.event(Decision::Differs)
        };
        self.log(sink, &event);
    }

    fn log(&self, sink: &Audit, event: &Event<'_>) {
        if let Err(error) = audit::write(sink, event) {
            log::error!("container {}: {}", self.id, chain(&error));
        }
    }
}

/// Each setting that somebody decided.
fn decided(policy: &Policy) -> Value {
    let decided = policy
        .list()
        .into_iter()
        .filter(|(_, _, from)| *from != Origin::Default);
    let decided: Map<String, Value> = decided
        .map(|(name, value, from)| (name.to_owned(), json!({"value": value, "from": from})))
        .collect();
    Value::Object(decided)
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Policy { .. } | Error::Node { .. } | Error::Plan { .. } | Error::ExecPlan { .. } | Error::Bundle { .. }
    )
}

/// The setting that refused it.
fn control(error: &Error) -> Option<&'static str> {
    match error {
        Error::Plan {
            source: plan::Error::Policy { setting, .. },
            ..
        }
        | Error::ExecPlan {
            source: plan::Error::Policy { setting, .. },
            ..
        } => Some(setting),
        Error::Policy {
            source:
                policy::Error::Loosens { name, .. } | policy::Error::NotForPods { name } | policy::Error::Value { name, .. },
            ..
        } => Some(name),
        _ => None,
    }
}
