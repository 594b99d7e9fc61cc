//! What a profile means, said a second time and as simply as it can be: slowly, call by call, straight from the
//! profile.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
};
use runtime_core::security::seccomp::{Architecture, Machine, compile_for, is_int, names};

use super::interpreter::{Call, run};
use super::random::{self, Random};
use super::{KILL_PROCESS, errno};

const X32_BIT: u32 = 1 << 30;

pub fn returned(action: Action, errno_ret: Option<u32>) -> u32 {
    match action {
        Action::ScmpActErrno | Action::ScmpActTrace => action.as_u32(Some(errno_ret.unwrap_or(libc::EPERM as u32))),
        other => other.as_u32(None),
    }
}

/// The architecture whose numbers a call's is one of.
pub fn architecture(call: &Call) -> Architecture {
    use Architecture::{Aarch64, Arm, X32, X86, X86_64};
    let x32 = call.number & X32_BIT != 0;
    let all = [X86_64, X32, X86, Aarch64, Arm].into_iter();
    let mut own = all.filter(|one| one.audit() == call.audit && (call.audit != X32.audit() || (*one == X32) == x32));
    own.next().unwrap()
}

pub fn name(call: &Call) -> Option<&'static str> {
    let mut found = names(architecture(call)).filter(|(_, number)| *number == call.number);
    found.next().map(|(name, _)| name)
}

fn holds(condition: &LinuxSeccompArg, call: &Call, name: &str) -> bool {
    let (mut argument, mut value) = (call.args[condition.index()], condition.value());
    let (mut mask, mut datum) = (condition.value(), condition.value_two().unwrap_or(0));
    let masked = condition.op() == Operator::ScmpCmpMaskedEq;
    let narrow = match architecture(call) {
        Architecture::X86_64 | Architecture::Aarch64 => {
            is_int(name, condition.index() as u8) && u32::try_from(value).is_ok()
        }
        _ => true,
    };
    if narrow {
        for wide in [&mut argument, &mut value, &mut mask, &mut datum] {
            *wide &= 0xffff_ffff;
        }
    }
    match condition.op() {
        _ if masked => argument & mask == datum & mask,
        Operator::ScmpCmpNe => argument != value,
        Operator::ScmpCmpLt => argument < value,
        Operator::ScmpCmpLe => argument <= value,
        Operator::ScmpCmpEq => argument == value,
        Operator::ScmpCmpGe => argument >= value,
        _ => argument > value,
    }
}

/// A condition that no argument fails.
fn is_void(condition: &LinuxSeccompArg, call: &Call) -> bool {
    let wide = matches!(architecture(call), Architecture::X86_64 | Architecture::Aarch64);
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    condition.op() == Operator::ScmpCmpMaskedEq && condition.value() & mask == 0
}

/// socketcall's and ipc's selectors, beside the call's own number.
const SELECTED: [(&str, &str, u64); 8] = [
    ("socketcall", "socket", 1),
    ("socketcall", "bind", 2),
    ("socketcall", "connect", 3),
    ("socketcall", "accept4", 18),
    ("ipc", "semop", 1),
    ("ipc", "msgsnd", 11),
    ("ipc", "shmat", 21),
    ("ipc", "shmctl", 24),
];

/// What may come of a call: one value, but several where rules contradict each other. None: this does not know.
pub fn says(profile: &LinuxSeccomp, machine: Machine, call: &Call) -> Option<Vec<u32>> {
    let default = returned(profile.default_action(), profile.default_errno_ret());
    let own = architecture(call);
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let section = match own {
        Architecture::X86 => machine == Machine::X86_64 && listed.contains(&Arch::ScmpArchX86),
        Architecture::X32 => machine == Machine::X86_64 && listed.contains(&Arch::ScmpArchX32),
        Architecture::Arm => machine == Machine::Aarch64 && listed.contains(&Arch::ScmpArchArm),
        native => native == machine.native(),
    };
    // Numbers with the sign bit are nobody's; what libseccomp says of them is compared in `oracle`.
    if call.number >= 1 << 31 || SELECTED.iter().any(|(shared, ..)| name(call) == Some(shared)) {
        return None;
    }
    if !section {
        return Some(vec![KILL_PROCESS]);
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let permissive = matches!(
        profile.default_action(),
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    );
    let shared = |name: &str| own == Architecture::X86 && is_shared(name);
    let numbers = names(own)
        .filter(|(name, _)| !shared(name) && rules.iter().any(|rule| rule.names().iter().any(|own| own == name)));
    let largest = numbers.map(|(_, number)| number).max().unwrap_or(0);
    if !permissive && largest != 0 && call.number > largest {
        return Some(vec![errno(libc::ENOSYS)]);
    }
    let Some(name) = name(call) else {
        return Some(vec![default]);
    };
    let mut said = Vec::new();
    for rule in rules {
        let action = returned(rule.action(), rule.errno_ret());
        if action == default || !rule.names().iter().any(|own| own == name) {
            continue;
        }
        let args = rule.args().as_deref().unwrap_or_default();
        let each = (0..6).any(|index| args.iter().filter(|one| one.index() == index).count() > 1);
        let void = |one: &LinuxSeccompArg| is_void(one, call);
        if args.iter().all(void) || each && args.iter().any(void) {
            return Some(vec![action]);
        }
        let holds = |one: &LinuxSeccompArg| holds(one, call, name);
        if if each {
            args.iter().any(holds)
        } else {
            args.iter().all(holds)
        } {
            said.push(action);
        }
    }
    if said.is_empty() {
        said.push(default);
    }
    Some(said)
}

fn is_shared(name: &str) -> bool {
    const SHARED: [&str; 32] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
        "semop",
        "semget",
        "semctl",
        "semtimedop",
        "msgsnd",
        "msgrcv",
        "msgget",
        "msgctl",
        "shmat",
        "shmdt",
        "shmget",
        "shmctl",
    ];
    SHARED.contains(&name)
}

#[test]
fn every_call_comes_to_what_its_rules_say() {
    let mut compared = 0;
    for machine in [Machine::X86_64, Machine::Aarch64] {
        for round in 0..600_u64 {
            let mut random = Random::new(9 << 32 | round);
            let (all, listed) = random::names_on(machine);
            let profile = random::profile(&mut random, &all, &listed, round % 2 == 0);
            let program = compile_for(&profile, machine).unwrap().program;
            for _ in 0..40 {
                let call = random::call(&mut random, &profile, machine, &all);
                let Some(expected) = says(&profile, machine, &call) else {
                    continue;
                };
                let returned = run(&program, &call).0;
                assert!(
                    expected.contains(&returned),
                    "round {round}, {:?} {call:x?}: {returned:#x}, expected {expected:x?}",
                    name(&call)
                );
                compared += 1;
            }
        }
    }
    println!("{compared} calls compared");
    assert!(compared > 30_000);
}

#[test]
fn i386_s_shared_calls_select_what_a_rule_names() {
    for (shared, name, selector) in SELECTED {
        let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": [name], "action": "SCMP_ACT_TRAP"}]});
        let program = compile_for(&serde_json::from_value(profile).unwrap(), Machine::X86_64)
            .unwrap()
            .program;
        let number = names(Architecture::X86).find(|(known, _)| *known == shared).unwrap().1;
        for argument in 0..30 {
            let call = Call {
                audit: Architecture::X86.audit(),
                number,
                args: [argument, 0, 0, 0, 0, 0],
            };
            assert_eq!(
                run(&program, &call).0 == 0x0003_0000,
                argument == selector,
                "{name} {argument}"
            );
        }
    }
}
