//! What is refused, and in which words.

use runtime_core::security::seccomp::{Machine, compile_for};
use serde_json::{Value, json};

use super::profile;

fn refusal(json: Value) -> String {
    compile_for(&profile(json), Machine::X86_64).unwrap_err().to_string()
}

#[test]
fn each_error_names_the_field_and_what_is_wrong_with_it() {
    let first = json!({"names": ["read"], "action": "SCMP_ACT_LOG"});
    let rules = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [first, rule]});
    let table = [
        (
            rules(json!({"names": [], "action": "SCMP_ACT_KILL"})),
            "linux.seccomp.syscalls[1].names is empty",
        ),
        (
            rules(json!({"names": ["open", ""], "action": "SCMP_ACT_KILL"})),
            "linux.seccomp.syscalls[1].names has an empty name",
        ),
        (
            rules(json!({"names": ["open"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[1].args[0].index: 6 is not an argument (0 to 5)",
        ),
        (
            rules(json!({"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "linux.seccomp.syscalls[1].errnoRet: 4096 is more than the 4095 that SCMP_ACT_ERRNO can give",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}),
            "linux.seccomp.defaultErrnoRet: 65536 is more than the 65535 that SCMP_ACT_TRACE can give",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: the process could not even \
             tell the agent of itself",
        ),
        (
            rules(json!({"names": ["open"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs it: the agent's socket",
        ),
        (
            rules(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[1].names: SCMP_ACT_NOTIFY cannot be for write: handing over the listener needs it",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
    ];
    for (profile, expected) in table {
        assert_eq!(refusal(profile), expected);
    }
}

#[test]
fn a_filter_longer_than_the_kernel_takes_is_refused_with_its_length() {
    let conditions = (0..3000_u64).map(|value| json!({"index": 0, "value": value << 33 | value, "op": "SCMP_CMP_EQ"}));
    let rule = json!({"names": ["mmap"], "action": "SCMP_ACT_KILL", "args": conditions.collect::<Vec<_>>()});
    let refusal = refusal(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    assert!(
        refusal.starts_with("linux.seccomp: the filter has ")
            && refusal.ends_with(" instructions, the kernel takes 4096"),
        "{refusal}"
    );
}

#[test]
fn unknown_words_are_refused_where_the_profile_is_read() {
    for json in [
        json!({"defaultAction": "SCMP_ACT_MAYBE"}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FAST"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["open"], "action": "SCMP_ACT_KILL",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NEAR"}]}]}),
    ] {
        let error = serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(json).unwrap_err();
        assert!(error.to_string().contains("unknown variant"), "{error}");
    }
}
