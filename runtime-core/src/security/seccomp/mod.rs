//! System call filters: an OCI profile (runtime-spec, config-linux.md, "Seccomp") compiled to the classic BPF that
//! seccomp(2) takes.
//!
//! What a profile means is what runc and libseccomp make of it, to the single system call; tests compare the two over
//! random profiles. Two things are stricter. Arguments that the kernel cuts to 32 bits are compared as 32 bits
//! ([`is_int`]), so that upper bits, which the kernel ignores, do not get a call past its rule. And a call of an
//! architecture that the profile does not name ends the whole process, not the thread alone.
//!
//! Compiled programs are not cached: containerd's default takes 0.12 ms (median of 300, at opt-level 1), once for a
//! container, and every kept program would be 5 kB of a shim that has 250.
//!
//! The way: `profile` reads the rules and names the field of what is wrong; `decision` says for every number of an
//! architecture what happens; `program` writes that as a binary search which the kernel's cache of allowed calls
//! (kernel/seccomp.c, seccomp_is_const_allow, since 5.11) can follow: only loads of number and architecture, and
//! comparisons with constants, before a call's arguments are looked at.

mod architecture;
mod assembler;
mod decision;
mod error;
mod multiplexed;
pub mod named;
mod profile;
mod program;
pub mod record;
mod table;
mod width;

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

pub use architecture::{Architecture, Machine};
pub use error::Error;
pub use table::names;
pub use width::is_int;

/// SECCOMP_FILTER_FLAG_LOG: actions other than ALLOW go to the audit log.
pub const FLAG_LOG: u32 = 1 << 1;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: no mitigation of speculative store bypass because of this filter.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER: loading returns the fd of a listener.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: a call whose notification was received waits for an answer or a fatal
/// signal.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// One instruction: struct sock_filter of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u16, u8, u8, u32)", into = "(u16, u8, u8, u32)")]
#[repr(C)]
pub struct SockFilter {
    /// What it does: BPF_* of linux/bpf_common.h.
    pub code: u16,
    /// Instructions to leave out if a comparison is true.
    pub jt: u8,
    /// Instructions to leave out if a comparison is false.
    pub jf: u8,
    /// Its constant.
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for SockFilter {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Self { code, jt, jf, k }
    }
}

impl From<SockFilter> for (u16, u8, u8, u32) {
    fn from(SockFilter { code, jt, jf, k }: SockFilter) -> Self {
        (code, jt, jf, k)
    }
}

/// A compiled profile, to be loaded by [`crate::sys::seccomp::load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The instructions: at most BPF_MAXINSNS.
    pub program: Vec<SockFilter>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// A rule says NOTIFY: loading gives a listener, which belongs to who listens on `listenerPath`.
    pub uses_notify: bool,
}

/// Compiles `profile` for the machine that this program is made for.
///
/// # Errors
/// What in the profile cannot be honoured, by field and value.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    compile_for(profile, Machine::HOST)
}

/// Compiles `profile` for `machine`. Its `architectures` that this kind of machine cannot execute are left out: no call
/// can come from them.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(profile: &LinuxSeccomp, machine: Machine) -> Result<Filter, Error> {
    let architectures = machine.architectures(profile.architectures().as_deref().unwrap_or_default());
    let profile = profile::Profile::read(profile)?;
    let spaces = decision::spaces(&profile, &architectures);
    Ok(Filter {
        program: program::program(&spaces)?,
        flags: profile.flags,
        uses_notify: profile.uses_notify,
    })
}
