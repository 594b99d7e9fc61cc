//! Classic BPF, written from its end to its start: jumps only go forward, so their targets are there already.

use super::SockFilter;

/// BPF_MAXINSNS of linux/bpf_common.h.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const RET_K: u16 = 0x06;

/// Comparisons of the accumulator with a constant.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Jump {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// Somewhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// An instruction, counted from the program's end.
    At(usize),
    /// The end, with this value; written where it is needed.
    Return(u32),
}

/// A program that grows towards its start.
#[derive(Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    reversed: Vec<SockFilter>,
    /// Where values are returned, latest last.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    /// Comparisons reach over 255 instructions. What a jump may still have written before it: the other target's.
    const REACH: usize = 255 - 1;

    pub(super) fn new() -> Self {
        Self {
            reversed: Vec::with_capacity(1024),
            returns: Vec::with_capacity(64),
        }
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.reversed.push(SockFilter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// `target` within a comparison's reach from the next instruction but one.
    fn near(&mut self, target: Label) -> usize {
        let here = self.reversed.len();
        match target {
            Label::At(at) if here - at <= Self::REACH => at,
            Label::At(at) => self.push(JMP_JA, 0, 0, (here - at - 1) as u32),
            Label::Return(value) => {
                let written = self.returns.iter().rev().find(|(returned, _)| *returned == value);
                match written {
                    Some(&(_, at)) if here - at <= Self::REACH => at,
                    _ => {
                        let at = self.push(RET_K, 0, 0, value);
                        self.returns.push((value, at));
                        at
                    }
                }
            }
        }
    }

    /// Compares what the accumulator holds.
    pub(super) fn jump(&mut self, jump: Jump, k: u32, then: Label, otherwise: Label) -> Label {
        if then == otherwise {
            return then;
        }
        let otherwise = self.near(otherwise);
        let then = self.near(then);
        let here = self.reversed.len();
        let (jt, jf) = ((here - then - 1) as u8, (here - otherwise - 1) as u8);
        Label::At(self.push(jump as u16, jt, jf, k))
    }

    /// Loads the 32 bits at `offset` of seccomp_data, keeps those of `mask`, and goes on with `next`.
    pub(super) fn load(&mut self, offset: u32, mask: u32, next: Label) -> Label {
        let Label::At(at) = next else {
            return next;
        };
        if at + 1 != self.reversed.len() {
            self.push(JMP_JA, 0, 0, (self.reversed.len() - at - 1) as u32);
        }
        if mask != u32::MAX {
            self.push(ALU_AND_K, 0, 0, mask);
        }
        Label::At(self.push(LD_W_ABS, 0, 0, offset))
    }

    /// The program, which starts at `start`.
    pub(super) fn finish(mut self, start: Label) -> Vec<SockFilter> {
        match start {
            Label::Return(value) => {
                self.reversed.clear();
                self.push(RET_K, 0, 0, value);
            }
            Label::At(at) => self.reversed.truncate(at + 1),
        }
        self.reversed.reverse();
        self.reversed
    }
}
