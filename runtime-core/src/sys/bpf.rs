//! bpf(2), as far as the device rules of cgroup v2 need it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// struct bpf_insn of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, operation, and where the operand comes from.
    pub code: u8,
    /// The destination's register in the lower half, the source's in the upper.
    pub registers: u8,
    /// How far to jump, or where to load from.
    pub offset: i16,
    /// A constant.
    pub immediate: i32,
}

/// Larger than any kernel's union bpf_attr so far, and zeroed: since 6.17 BPF_PROG_QUERY writes fields back that older
/// headers do not have, past the end of what is too small.
#[repr(C, align(8))]
struct Attributes([u8; 512]);

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

/// BPF_PROG_TYPE_CGROUP_DEVICE.
const TYPE: u32 = 15;
/// BPF_CGROUP_DEVICE.
const ATTACH: u32 = 6;
/// BPF_F_ALLOW_MULTI: beside programs of the cgroups above and below; every one of them has to allow.
const ALLOW_MULTI: u32 = 2;

/// What the kernel asks of a program that uses its helpers; ours uses none.
const LICENSE: &CStr = c"Apache-2.0";

/// Programs looked for on one cgroup. The kernel allows no more than this (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

impl Attributes {
    fn new() -> Self {
        Self([0; 512])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &impl AsFd) -> Self {
        self.u32(at, fd.as_fd().as_raw_fd().unsigned_abs())
    }

    /// # Safety
    /// Whatever `self` points to must be live and as large as the command takes it to be.
    unsafe fn call(&mut self, command: libc::c_int) -> io::Result<libc::c_long> {
        // SAFETY: `self` is live, writable and as long as is said; the rest is the caller's word.
        super::check(unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of::<Self>()) })
    }
}

/// Has the kernel check and take a program that decides about devices.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN; EINVAL for a program that the verifier refuses.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let length = u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut attributes = Attributes::new()
        .u32(0, TYPE)
        .u32(4, length)
        .u64(8, program.as_ptr() as u64)
        .u64(16, LICENSE.as_ptr() as u64)
        .u32(68, ATTACH);
    // SAFETY: `program` has so many instructions of the kernel's layout, and the licence ends with NUL.
    let fd = unsafe { attributes.call(PROG_LOAD)? };
    // SAFETY: a new fd, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Attaches a program to a cgroup, beside those that are there.
///
/// # Errors
/// EPERM where a cgroup above has a program that allows none beside it.
pub fn attach(cgroup: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .fd(0, cgroup)
        .fd(4, program)
        .u32(8, ATTACH)
        .u32(12, ALLOW_MULTI);
    // SAFETY: it points to nothing.
    unsafe { attributes.call(PROG_ATTACH) }.map(drop)
}

/// Takes a program off a cgroup.
pub fn detach(cgroup: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let mut attributes = Attributes::new().fd(0, cgroup).fd(4, program).u32(8, ATTACH);
    // SAFETY: it points to nothing.
    unsafe { attributes.call(PROG_DETACH) }.map(drop)
}

/// The programs that are attached to this very cgroup.
pub fn attached(cgroup: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = Attributes::new()
        .fd(0, cgroup)
        .u32(4, ATTACH)
        .u64(16, ids.as_mut_ptr() as u64)
        .u32(24, MAX_PROGRAMS as u32);
    // SAFETY: `ids` has room for so many.
    unsafe { attributes.call(PROG_QUERY)? };
    let count = u32::from_ne_bytes([attributes.0[24], attributes.0[25], attributes.0[26], attributes.0[27]]);
    let ids = &ids[..(count as usize).min(MAX_PROGRAMS)];
    ids.iter()
        .map(|id| {
            let mut attributes = Attributes::new().u32(0, *id);
            // SAFETY: it points to nothing.
            let fd = unsafe { attributes.call(PROG_GET_FD_BY_ID)? };
            // SAFETY: a new fd, which is nobody else's.
            Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
        })
        .collect()
}
