//! The classic BPF that seccomp(2) takes, run over seccomp_data.

use runtime_core::security::seccomp::SockFilter;

/// One system call: struct seccomp_data, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub audit: u32,
    pub number: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..=60 if offset.is_multiple_of(4) => {
                let argument = self.args[(offset as usize - 16) / 8];
                (argument >> (offset % 8 * 8)) as u32
            }
            _ => panic!("a load at offset {offset}"),
        }
    }
}

/// What `program` returns, and how many instructions that took.
pub fn run(program: &[SockFilter], call: &Call) -> (u32, usize) {
    let (mut a, mut next, mut steps) = (0_u32, 0, 0);
    loop {
        let SockFilter { code, jt, jf, k } = program[next];
        next += 1;
        steps += 1;
        let jump = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            0x20 => a = call.word(k),
            0x54 => a &= k,
            0x05 => next += k as usize,
            0x15 => next += jump(a == k),
            0x25 => next += jump(a > k),
            0x35 => next += jump(a >= k),
            0x45 => next += jump(a & k != 0),
            0x06 => return (k, steps),
            _ => panic!("an instruction {code:#x}"),
        }
    }
}

/// What the kernel finds out when it fills its cache of allowed calls (kernel/seccomp.c, seccomp_is_const_allow):
/// whether the call is allowed before anything but number and architecture is looked at.
pub fn is_cached(program: &[SockFilter], audit: u32, number: u32) -> bool {
    let call = Call {
        audit,
        number,
        args: [0; 6],
    };
    let (mut a, mut next) = (0_u32, 0);
    loop {
        let SockFilter { code, jt, jf, k } = program[next];
        next += 1;
        let jump = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            0x20 if k < 8 => a = call.word(k),
            0x54 => a &= k,
            0x05 => next += k as usize,
            0x15 => next += jump(a == k),
            0x25 => next += jump(a > k),
            0x35 => next += jump(a >= k),
            0x45 => next += jump(a & k != 0),
            0x06 => return k == super::ALLOW,
            _ => return false,
        }
    }
}
