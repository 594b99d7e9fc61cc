//! What profiles mean, rule by rule.

use runtime_core::security::seccomp::{
    Architecture, FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, Filter, Machine, compile_for,
    names,
};
use serde_json::{Value, json};

use super::interpreter::{Call, run};
use super::{ALLOW, KILL, KILL_PROCESS, compiled, errno, known, profile};

fn number(architecture: Architecture, name: &str) -> u32 {
    names(architecture).find(|(known, _)| *known == name).unwrap().1
}

fn says_on(filter: &Filter, architecture: Architecture, name: &str, args: &[u64]) -> u32 {
    let mut call = Call {
        audit: architecture.audit(),
        number: number(architecture, name),
        args: [0; 6],
    };
    call.args[..args.len()].copy_from_slice(args);
    run(&filter.program, &call).0
}

fn says(filter: &Filter, name: &str, args: &[u64]) -> u32 {
    says_on(filter, Architecture::X86_64, name, args)
}

fn says_of_number(filter: &Filter, architecture: Architecture, number: u32) -> u32 {
    let call = Call {
        audit: architecture.audit(),
        number,
        args: [0; 6],
    };
    run(&filter.program, &call).0
}

fn allow_by_default(rules: Value) -> Filter {
    compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

#[test]
fn a_profile_without_rules_is_its_default() {
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(says(&filter, "read", &[]), ALLOW);
    assert_eq!(says_of_number(&filter, Architecture::X86_64, 9999), ALLOW);
}

#[test]
fn actions_have_the_kernel_s_values_and_errnos_theirs() {
    let rule = |name: &str, action: &str| json!({"names": [name], "action": action});
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent",
        "syscalls": [
            rule("read", "SCMP_ACT_ERRNO"),
            {"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095},
            {"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            rule("close", "SCMP_ACT_KILL"),
            rule("stat", "SCMP_ACT_KILL_THREAD"),
            rule("fstat", "SCMP_ACT_KILL_PROCESS"),
            rule("lstat", "SCMP_ACT_TRAP"),
            rule("poll", "SCMP_ACT_TRACE"),
            {"names": ["brk"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
            rule("lseek", "SCMP_ACT_LOG"),
            rule("mprotect", "SCMP_ACT_NOTIFY"),
        ],
    }));
    let expected = [
        ("read", errno(libc::EPERM)),
        ("open", errno(4095)),
        ("mmap", errno(0)),
        ("close", KILL),
        ("stat", KILL),
        ("fstat", KILL_PROCESS),
        ("lstat", 0x0003_0000),
        ("poll", 0x7ff0_0001),
        ("brk", 0x7ff0_ffff),
        ("lseek", 0x7ffc_0000),
        ("mprotect", 0x7fc0_0000),
        ("write", ALLOW),
    ];
    for (name, returned) in expected {
        assert_eq!(says(&filter, name, &[]), returned, "{name}");
    }
    assert!(filter.uses_notify);
    assert_eq!(filter.flags, FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER);
}

#[test]
fn operators_compare_64_unsigned_bits() {
    const V: u64 = 0x1_0000_0005;
    let table = [
        ("SCMP_CMP_NE", [true, true, false, true, true]),
        ("SCMP_CMP_LT", [true, true, false, false, false]),
        ("SCMP_CMP_LE", [true, true, true, false, false]),
        ("SCMP_CMP_EQ", [false, false, true, false, false]),
        ("SCMP_CMP_GE", [false, false, true, true, true]),
        ("SCMP_CMP_GT", [false, false, false, true, true]),
    ];
    for (op, expected) in table {
        let filter = allow_by_default(json!([
            {"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": V, "op": op}]},
        ]));
        for (argument, hit) in [9, 0x1_0000_0004, V, 0x1_0000_0006, u64::MAX].into_iter().zip(expected) {
            let returned = says(&filter, "mmap", &[0, argument]);
            assert_eq!(returned == errno(libc::EPERM), hit, "{argument:#x} {op} {V:#x}");
        }
    }
}

#[test]
fn masked_equality_has_the_mask_in_value_and_the_rest_in_value_two() {
    let rule = json!([{"names": ["clone"], "action": "SCMP_ACT_KILL",
        "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]);
    let filter = allow_by_default(rule);
    assert_eq!(says(&filter, "clone", &[0x11]), KILL);
    assert_eq!(says(&filter, "clone", &[0x1000_0011]), ALLOW);
    assert_eq!(says(&filter, "clone", &[0xffff_0000_0000_0011]), KILL);
}

#[test]
fn conditions_on_different_arguments_must_all_hold_and_those_on_one_argument_are_each_a_rule() {
    let condition = |index: u64, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let filter = allow_by_default(json!([
        {"names": ["mmap"], "action": "SCMP_ACT_KILL", "args": [condition(1, 1), condition(2, 2)]},
        {"names": ["munmap"], "action": "SCMP_ACT_KILL", "args": [condition(1, 1), condition(1, 3), condition(0, 7)]},
    ]));
    assert_eq!(says(&filter, "mmap", &[0, 1, 2]), KILL);
    assert_eq!(says(&filter, "mmap", &[0, 1, 3]), ALLOW);
    for args in [[0, 1], [0, 3], [7, 9]] {
        assert_eq!(says(&filter, "munmap", &args), KILL, "{args:?}");
    }
    assert_eq!(says(&filter, "munmap", &[0, 2]), ALLOW);
}

#[test]
fn a_rule_without_conditions_is_the_last_word_on_its_call() {
    let unconditional = json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38});
    let conditional = json!({"names": ["clone3"], "action": "SCMP_ACT_KILL",
        "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]});
    let later = json!({"names": ["clone3"], "action": "SCMP_ACT_TRAP"});
    for rules in [
        json!([unconditional, conditional, later]),
        json!([conditional, unconditional, later]),
    ] {
        assert_eq!(says(&allow_by_default(rules), "clone3", &[]), errno(libc::ENOSYS));
    }
}

#[test]
fn upper_bits_do_not_get_an_int_past_its_rule() {
    // AF_VSOCK as Docker denies it, TIOCSTI as flatpak denied it (CVE-2019-10063).
    let not_40 = json!([{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]);
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["socket", "mmap"], "action": "SCMP_ACT_ALLOW", "args": not_40}],
    }));
    assert_eq!(says(&filter, "socket", &[2]), ALLOW);
    assert_eq!(says(&filter, "socket", &[40]), errno(libc::EPERM));
    assert_eq!(says(&filter, "socket", &[0x1_0000_0028]), errno(libc::EPERM));
    // mmap's address has 64 bits.
    assert_eq!(says(&filter, "mmap", &[0x1_0000_0028]), ALLOW);
    let filter = allow_by_default(json!([{"names": ["ioctl"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ"}]}]));
    assert_eq!(says(&filter, "ioctl", &[0, 0xff_0000_5412]), errno(libc::EPERM));
}

#[test]
fn numbers_above_all_that_the_profile_names_are_enosys() {
    let profile = |default: &str| {
        json!({"defaultAction": default, "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "openat2"], "action": "SCMP_ACT_LOG"},
                {"names": ["write"], "action": "SCMP_ACT_ALLOW"}]})
    };
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        let filter = compiled(profile(default));
        for architecture in [Architecture::X86_64, Architecture::X86] {
            assert_eq!(says_on(&filter, architecture, "openat2", &[]), 0x7ffc_0000);
            for unknown in [438, 500, 0x3fff_ffff] {
                let returned = says_of_number(&filter, architecture, unknown);
                assert_eq!(returned, errno(libc::ENOSYS), "{default} {unknown}");
            }
        }
        assert_ne!(says(&filter, "close", &[]), errno(libc::ENOSYS));
    }
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_TRACE"] {
        assert_ne!(
            says_of_number(&compiled(profile(default)), Architecture::X86_64, 500),
            errno(libc::ENOSYS)
        );
    }
}

#[test]
fn architectures_that_the_profile_does_not_name_are_killed() {
    let rules = json!([{"names": ["getpid", "mseal"], "action": "SCMP_ACT_ALLOW"}]);
    let only = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert_eq!(says(&only, "getpid", &[]), ALLOW);
    for foreign in [Architecture::X86, Architecture::X32, Architecture::Aarch64] {
        assert_eq!(says_on(&only, foreign, "getpid", &[]), KILL_PROCESS, "{foreign:?}");
    }
    // What a tracer leaves for a call to be skipped is nobody's.
    assert_eq!(
        says_of_number(&only, Architecture::X86_64, u32::MAX),
        errno(libc::EPERM)
    );
    let all = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules,
        "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"]}));
    for own in [Architecture::X86_64, Architecture::X86, Architecture::X32] {
        assert_eq!(says_on(&all, own, "getpid", &[]), ALLOW, "{own:?}");
    }
    assert_eq!(says_on(&all, Architecture::Aarch64, "getpid", &[]), KILL_PROCESS);
}

#[test]
fn sockets_are_one_call_of_i386_and_many() {
    let filter = compiled(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["connect", "shmat", "mseal"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let i386 = |name, args: &[u64]| says_on(&filter, Architecture::X86, name, args);
    assert_eq!(i386("connect", &[]), ALLOW);
    assert_eq!(i386("socketcall", &[3]), ALLOW);
    assert_eq!(i386("socketcall", &[2]), errno(libc::EPERM));
    assert_eq!(i386("ipc", &[21]), ALLOW);
    assert_eq!(i386("ipc", &[22]), errno(libc::EPERM));
}

#[test]
fn flags_are_runc_s_default_unless_they_are_given() {
    let flags = |flags: Value| {
        compiled(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/run/agent",
            "syscalls": [{"names": ["chown"], "action": "SCMP_ACT_NOTIFY"}]}),
        )
        .flags
    };
    assert_eq!(
        compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"})).flags,
        FLAG_SPEC_ALLOW
    );
    assert_eq!(flags(json!([])), FLAG_NEW_LISTENER);
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])),
        FLAG_LOG | FLAG_NEW_LISTENER
    );
    assert_eq!(
        flags(json!([
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
        ])),
        FLAG_SPEC_ALLOW | FLAG_WAIT_KILLABLE_RECV | FLAG_NEW_LISTENER
    );
}

#[test]
fn names_that_nobody_knows_are_left_out() {
    let filter = allow_by_default(json!([{"names": ["no_such_call", "chmod"], "action": "SCMP_ACT_KILL"}]));
    assert_eq!(says(&filter, "chmod", &[]), KILL);
}

#[test]
fn aarch64_has_arm_beside_it() {
    let profile = profile(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["openat", "open", "mseal"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let filter = compile_for(&profile, Machine::Aarch64).unwrap();
    assert_eq!(says_on(&filter, Architecture::Aarch64, "openat", &[]), ALLOW);
    assert_eq!(says_on(&filter, Architecture::Arm, "open", &[]), ALLOW);
    assert_eq!(says_on(&filter, Architecture::Arm, "chmod", &[]), errno(libc::EPERM));
    assert_eq!(says_on(&filter, Architecture::X86_64, "openat", &[]), KILL_PROCESS);
}

#[test]
fn a_filter_goes_through_json_unchanged() {
    for (name, profile) in known() {
        let filter = compile_for(&profile, Machine::X86_64).unwrap();
        let json = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter, "{name}");
    }
}
