//! A profile read: what is wrong in it is named, what is left is plain.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::table::Numbers;
use super::{Error, FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV};

/// SECCOMP_RET_*: what the kernel does, above 16 bits of data (linux/seccomp.h).
const RET_KILL_THREAD: u32 = 0;
pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = libc::EPERM as u32;
/// MAX_ERRNO of linux/err.h: SECCOMP_RET_ERRNO's data is cut there.
const ERRNO_MOST: u32 = 4095;
const TRACE_MOST: u32 = 0xffff;
const ARGUMENTS: usize = 6;

/// A profile whose every field can be honoured.
pub(super) struct Profile<'a> {
    /// What the filter returns where no rule says otherwise.
    pub default: u32,
    /// The default action lets calls through: those that the profile's author did not know as well.
    pub permissive: bool,
    pub flags: u32,
    pub uses_notify: bool,
    /// In the profile's order.
    pub rules: Vec<Rule<'a>>,
}

/// One entry of `syscalls`.
pub(super) struct Rule<'a> {
    /// Names that some architecture knows; others are left out, as runc does: a profile may be newer than we are.
    pub calls: Vec<(&'a str, Numbers)>,
    pub action: u32,
    /// Lists of conditions of which one must hold altogether; none: the rule holds for every call.
    pub alternatives: Vec<Vec<Condition>>,
}

/// A comparison of an argument, as 64 unsigned bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub argument: u8,
    pub compare: Compare,
    /// What of the argument is compared; the value has no other bits.
    pub mask: u64,
    pub value: u64,
}

/// argument `compare` value
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal under the mask.
    Masked,
}

impl<'a> Profile<'a> {
    pub(super) fn read(given: &'a LinuxSeccomp) -> Result<Self, Error> {
        let default_action = given.default_action();
        if default_action == Action::ScmpActNotify {
            return Err(Error::Notify {
                field: "defaultAction".into(),
                wrong: "cannot be the default: the process could not even tell the agent of itself",
            });
        }
        let default = returned(default_action, given.default_errno_ret(), || "defaultErrnoRet".into())?;
        let syscalls = given.syscalls().as_deref().unwrap_or_default();
        let rules = syscalls.iter().enumerate().map(|(index, rule)| Rule::read(index, rule));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        // A rule that repeats the default is none to the filter, yet its NOTIFY asks for a listener.
        let uses_notify = syscalls.iter().any(|rule| rule.action() == Action::ScmpActNotify);
        if uses_notify && given.listener_path().is_none() {
            return Err(Error::Notify {
                field: "listenerPath".into(),
                wrong: "needs it: the agent's socket",
            });
        }
        Ok(Self {
            default,
            permissive: matches!(
                default_action,
                Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
            ),
            flags: flags(given.flags().as_deref(), uses_notify)?,
            uses_notify,
            rules,
        })
    }
}

impl<'a> Rule<'a> {
    fn read(index: usize, given: &'a LinuxSyscall) -> Result<Self, Error> {
        let wrong = |wrong| Error::Names { rule: index, wrong };
        if given.names().is_empty() {
            return Err(wrong("is empty"));
        }
        if given.names().iter().any(String::is_empty) {
            return Err(wrong("has an empty name"));
        }
        if given.action() == Action::ScmpActNotify && given.names().iter().any(|name| name == "write") {
            return Err(Error::Notify {
                field: format!("syscalls[{index}].names"),
                wrong: "cannot be for write: handing over the listener needs it",
            });
        }
        let calls = given.names().iter();
        let calls = calls.filter_map(|name| Some((name.as_str(), Numbers::of(name)?)));
        Ok(Self {
            calls: calls.collect(),
            action: returned(given.action(), given.errno_ret(), || {
                format!("syscalls[{index}].errnoRet")
            })?,
            alternatives: alternatives(index, given.args().as_deref().unwrap_or_default())?,
        })
    }
}

/// Conditions on different arguments must all hold; as soon as two are on the same one, each is a rule of its own. So
/// runc has it, and the OCI spec says nothing.
fn alternatives(rule: usize, given: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, Error> {
    let mut count = [0; ARGUMENTS];
    let mut conditions = Vec::with_capacity(given.len());
    for (argument, condition) in given.iter().enumerate() {
        let index = condition.index();
        *count.get_mut(index).ok_or(Error::Index { rule, argument, index })? += 1;
        conditions.push(self::condition(condition));
    }
    if count.iter().any(|&count| count > 1) {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    conditions.sort_by_key(|condition| condition.argument);
    Ok(if conditions.is_empty() {
        Vec::new()
    } else {
        vec![conditions]
    })
}

fn condition(given: &LinuxSeccompArg) -> Condition {
    let compare = match given.op() {
        Operator::ScmpCmpNe => Compare::NotEqual,
        Operator::ScmpCmpLt => Compare::Less,
        Operator::ScmpCmpLe => Compare::LessOrEqual,
        Operator::ScmpCmpEq => Compare::Equal,
        Operator::ScmpCmpGe => Compare::GreaterOrEqual,
        Operator::ScmpCmpGt => Compare::Greater,
        Operator::ScmpCmpMaskedEq => Compare::Masked,
    };
    // MASKED_EQ has the mask where others have the value.
    let (mask, value) = match compare {
        Compare::Masked => (given.value(), given.value_two().unwrap_or(0) & given.value()),
        _ => (u64::MAX, given.value()),
    };
    Condition {
        argument: given.index() as u8,
        compare,
        mask,
        value,
    }
}

/// What a filter returns for an action. `errno_ret` of an action that has no use for it is left alone, as in runc.
fn returned(action: Action, errno_ret: Option<u32>, field: impl FnOnce() -> String) -> Result<u32, Error> {
    let data = |most, action| match errno_ret {
        None => Ok(EPERM),
        Some(value) if value <= most => Ok(value),
        Some(value) => Err(Error::ErrnoRet {
            field: field(),
            value,
            most,
            action,
        }),
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | data(ERRNO_MOST, "SCMP_ACT_ERRNO")?,
        Action::ScmpActNotify => RET_USER_NOTIF,
        Action::ScmpActTrace => RET_TRACE | data(TRACE_MOST, "SCMP_ACT_TRACE")?,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
    })
}

/// Without `flags`, not even an empty list, runc's default: SPEC_ALLOW. TSYNC is about threads, of which a process has
/// one when it takes the filter: there is nothing to do for it, as in runc.
fn flags(given: Option<&[Flag]>, uses_notify: bool) -> Result<u32, Error> {
    let listener = if uses_notify { FLAG_NEW_LISTENER } else { 0 };
    let Some(given) = given else {
        return Ok(FLAG_SPEC_ALLOW | listener);
    };
    given.iter().try_fold(listener, |flags, flag| {
        Ok(flags
            | match flag {
                Flag::SeccompFilterFlagTsync => 0,
                Flag::SeccompFilterFlagLog => FLAG_LOG,
                Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                Flag::SeccompFilterFlagWaitKillableRecv if uses_notify => FLAG_WAIT_KILLABLE_RECV,
                Flag::SeccompFilterFlagWaitKillableRecv => {
                    return Err(Error::Flag {
                        flag: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                        wrong: "needs a rule with SCMP_ACT_NOTIFY",
                    });
                }
            })
    })
}
