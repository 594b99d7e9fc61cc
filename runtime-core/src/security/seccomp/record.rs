//! Recording: a filter under which every call is told to a listener, and the profile of what was told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::architecture::X32_BIT;
use super::{Architecture, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV, Filter, Machine, SockFilter, names};
use crate::sys::seccomp::MARK;

const LD_W_ABS: u16 = 0x20;
const JMP_JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
/// Offsets in struct seccomp_data of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Of the fourth argument, which write(2) and read(2) do not have.
const UNUSED: u32 = 16 + 3 * 8;

/// A call as the kernel tells of it: seccomp_data's `arch` and `nr`.
pub type Call = (u32, u32);

/// Tells of every call but those with which the listener itself is handed over, by their mark.
pub fn filter() -> Filter {
    let load = |k| SockFilter {
        code: LD_W_ABS,
        jt: 0,
        jf: 0,
        k,
    };
    // Each comparison that fails goes to the last instruction.
    let equal = |k, jt, jf| SockFilter {
        code: JMP_JEQ_K,
        jt,
        jf,
        k,
    };
    let end = |k| SockFilter {
        code: RET_K,
        jt: 0,
        jf: 0,
        k,
    };
    let program = vec![
        load(ARCHITECTURE),
        equal(Machine::HOST.native().audit(), 0, 8),
        load(NUMBER),
        equal(libc::SYS_write as u32, 1, 0),
        equal(libc::SYS_read as u32, 0, 5),
        load(UNUSED),
        equal(MARK as u32, 0, 3),
        load(UNUSED + 4),
        equal((MARK >> 32) as u32, 0, 1),
        end(RET_ALLOW),
        end(RET_USER_NOTIF),
    ];
    Filter {
        program,
        // Without the second one a program that gets signals faster than it is answered would never get on.
        flags: FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV,
        uses_notify: true,
    }
}

/// The OCI profile that allows `calls` and nothing else.
pub fn profile(calls: &BTreeSet<Call>) -> Value {
    let (mut architectures, mut allowed) = (BTreeSet::new(), BTreeSet::new());
    for &(audit, number) in calls {
        let is = |architecture: &Architecture| {
            architecture.audit() == audit && (*architecture == Architecture::X32) == (number & X32_BIT != 0)
        };
        let all = [
            (Architecture::X86_64, "SCMP_ARCH_X86_64"),
            (Architecture::X86, "SCMP_ARCH_X86"),
            (Architecture::X32, "SCMP_ARCH_X32"),
            (Architecture::Aarch64, "SCMP_ARCH_AARCH64"),
            (Architecture::Arm, "SCMP_ARCH_ARM"),
        ];
        let Some((architecture, name)) = all.into_iter().find(|(architecture, _)| is(architecture)) else {
            continue;
        };
        architectures.insert(name);
        // A number without a name is no call of the kernel's: it came to ENOSYS, and will again.
        let mut found = names(architecture).filter(|(_, known)| *known == number);
        allowed.extend(found.next().map(|(name, _)| name));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures,
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_what_the_profile_allows() {
        let native = Architecture::X86_64.audit();
        let calls = [
            (native, 0),
            (native, 59),
            (native, 400_000),
            (Architecture::X86.audit(), 1),
            (1, 1),
        ];
        let profile = profile(&calls.into());
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]));
        assert_eq!(profile["syscalls"][0]["names"], json!(["execve", "exit", "read"]));
        let profile = serde_json::from_value(profile).unwrap();
        assert!(super::super::compile_for(&profile, Machine::X86_64).is_ok());
    }

    #[test]
    fn every_jump_of_the_filter_stays_inside_and_comes_to_an_end() {
        let program = filter().program;
        for (at, instruction) in program.iter().enumerate().filter(|(_, one)| one.code == JMP_JEQ_K) {
            for jump in [instruction.jt, instruction.jf] {
                assert!(at + 1 + usize::from(jump) < program.len());
            }
            let failed = program[at + 1 + usize::from(instruction.jf)];
            assert!(
                instruction.k == libc::SYS_write as u32 || failed.k == RET_USER_NOTIF,
                "{at}"
            );
        }
    }
}
