//! The program that decides about devices: rules in, instructions out; pure.
//!
//! The kernel tells kind, numbers and wanted access, several at once (open for reading and writing). The rules are gone
//! through from the last to the first; each decides about what it names of the access that no later rule decided.

use crate::cgroup::device_rules::{MAKE, READ, Rule, WRITE};
use crate::sys::bpf::Instruction;

/// linux/bpf.h: BPF_DEVCG_ACC_*, and BPF_DEVCG_DEV_*.
const ACCESS_MAKE: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Registers: the verdict, the context at first, and what is loaded from it.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const WANTED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Codes: class | operation | source (linux/bpf_common.h, linux/bpf.h).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const COPY: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_IF_ANY_BIT: u8 = 0x46;
const EXIT: u8 = 0x95;

fn with_constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate,
    }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: CONTEXT << 4 | register,
        offset,
        immediate: 0,
    }
}

fn end(allow: bool) -> [Instruction; 2] {
    [with_constant(MOVE, VERDICT, allow.into()), with_constant(EXIT, 0, 0)]
}

/// Jumps over the next `over` instructions if the comparison says so.
fn jump(code: u8, register: u8, immediate: i32, over: usize) -> Instruction {
    Instruction {
        offset: over as i16,
        ..with_constant(code, register, immediate)
    }
}

/// A program of the type BPF_PROG_TYPE_CGROUP_DEVICE that allows (1) or denies (0) as `rules` say, and denies what none
/// of them is about.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
        load(WANTED, 0),
        Instruction {
            code: COPY,
            registers: WANTED << 4 | KIND,
            offset: 0,
            immediate: 0,
        },
        with_constant(AND, KIND, 0xffff),
        with_constant(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if rule.is_about_all() {
            // Whatever came before it is overruled. The verifier refuses instructions that are never reached.
            program.extend(end(rule.allow));
            return program;
        }
        program.extend(block(rule));
    }
    program.extend(end(false));
    program
}

/// The instructions of one rule; what it is not about goes on behind them.
fn block(rule: &Rule) -> Vec<Instruction> {
    let bits = [(MAKE, ACCESS_MAKE), (READ, ACCESS_READ), (WRITE, ACCESS_WRITE)];
    let named = bits
        .iter()
        .filter(|(own, _)| rule.access & own != 0)
        .fold(0, |mask, (_, bit)| mask | bit);
    let [move_verdict, exit] = end(rule.allow);
    let decision = if rule.allow {
        vec![
            with_constant(AND, WANTED, !named),
            jump(JUMP_NOT_EQUAL, WANTED, 0, 2),
            move_verdict,
            exit,
        ]
    } else {
        // There is no jump if no bit is set: one over the next, which jumps over the end.
        vec![
            jump(JUMP_IF_ANY_BIT, WANTED, named, 1),
            jump(0x05, 0, 0, 2),
            move_verdict,
            exit,
        ]
    };
    let kind = rule.kind.map(|kind| if kind == 'b' { BLOCK } else { CHARACTER });
    let conditions: Vec<(u8, i32)> = [
        (KIND, kind),
        (MAJOR, rule.major.map(u32::cast_signed)),
        (MINOR, rule.minor.map(u32::cast_signed)),
    ]
    .into_iter()
    .filter_map(|(register, value)| Some((register, value?)))
    .collect();
    let count = conditions.len();
    let conditions = conditions.into_iter().enumerate().map(|(index, (register, value))| {
        let over = count - index - 1 + decision.len();
        jump(JUMP_NOT_EQUAL, register, value, over)
    });
    conditions.chain(decision.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel runs it, for the codes that are used; panics where a program leaves its end.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0u64; 6];
        let mut at = 0;
        for _ in 0..=program.len() {
            let Instruction {
                code,
                registers: pair,
                offset,
                immediate,
            } = program[at];
            let (to, from) = ((pair & 15) as usize, (pair >> 4) as usize);
            let value = registers[to] as u32;
            let constant = immediate.cast_unsigned();
            at += 1;
            let jumps = match code {
                LOAD_WORD => {
                    registers[to] = context[offset as usize / 4].into();
                    false
                }
                MOVE => {
                    registers[to] = constant.into();
                    false
                }
                COPY => {
                    registers[to] = u64::from(registers[from] as u32);
                    false
                }
                AND => {
                    registers[to] = (value & constant).into();
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] = (value >> constant).into();
                    false
                }
                JUMP_NOT_EQUAL => value != constant,
                JUMP_IF_ANY_BIT => value & constant != 0,
                0x05 => true,
                EXIT => return registers[0] as u32,
                other => panic!("code {other:#x}"),
            };
            if jumps {
                at += offset as usize;
            }
        }
        panic!("it does not end")
    }

    /// The rule of the OCI spec, bit by bit: the last one that is about it decides.
    fn allowed(rules: &[Rule], kind: char, major: u32, minor: u32, wanted: u8) -> bool {
        [READ, WRITE, MAKE]
            .into_iter()
            .filter(|bit| wanted & bit != 0)
            .all(|bit| {
                let fits = |rule: &&Rule| {
                    rule.kind.is_none_or(|own| own == kind)
                        && rule.major.is_none_or(|own| own == major)
                        && rule.minor.is_none_or(|own| own == minor)
                        && rule.access & bit != 0
                };
                rules.iter().rev().find(fits).is_some_and(|rule| rule.allow)
            })
    }

    fn ask(program: &[Instruction], kind: char, major: u32, minor: u32, wanted: u8) -> bool {
        let bits = [(MAKE, ACCESS_MAKE), (READ, ACCESS_READ), (WRITE, ACCESS_WRITE)];
        let access: i32 = bits
            .iter()
            .filter(|(own, _)| wanted & own != 0)
            .map(|(_, bit)| bit)
            .sum();
        let kind = if kind == 'b' { BLOCK } else { CHARACTER };
        run(program, [(access << 16 | kind).cast_unsigned(), major, minor]) == 1
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let number = || proptest::option::of(prop_oneof![0u32..3, Just(u32::MAX)]);
        let kind = proptest::option::of(prop_oneof![Just('b'), Just('c')]);
        (any::<bool>(), kind, number(), number(), 1u8..8).prop_map(|(allow, kind, major, minor, access)| Rule {
            allow,
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #[test]
        fn a_program_decides_as_the_last_rule_that_fits(
            rules in proptest::collection::vec(rule(), 0..8),
            kind in prop_oneof![Just('b'), Just('c')],
            major in prop_oneof![0u32..3, Just(u32::MAX)], minor in 0u32..3, wanted in 1u8..8,
        ) {
            let program = compile(&rules);
            prop_assert_eq!(ask(&program, kind, major, minor, wanted), allowed(&rules, kind, major, minor, wanted));
        }
    }

    #[test]
    fn without_rules_the_usual_devices_work_and_others_do_not() {
        let program = compile(&Rule::all(&[]).unwrap());
        assert!(ask(&program, 'c', 1, 3, READ | WRITE));
        assert!(ask(&program, 'c', 136, 7, READ | WRITE));
        assert!(ask(&program, 'b', 8, 0, MAKE));
        assert!(!ask(&program, 'b', 8, 0, READ));
        assert!(!ask(&program, 'c', 10, 229, READ | MAKE));
    }

    #[test]
    fn nothing_follows_a_rule_that_is_about_everything() {
        let all = |allow| Rule {
            allow,
            kind: None,
            major: None,
            minor: None,
            access: 7,
        };
        assert_eq!(compile(&[all(false), all(true)]).len(), 8);
        assert!(ask(&compile(&[all(false), all(true)]), 'b', 8, 0, 7));
        assert!(!ask(&compile(&[all(true), all(false)]), 'b', 8, 0, 1));
    }
}
