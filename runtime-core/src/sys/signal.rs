//! Signal numbers as callers give them; waiting for signals instead of handling them.

use std::io;
use std::ptr;

use rustix::process::Signal;

/// The highest signal number of Linux (`_NSIG`, include/uapi/asm-generic/signal.h).
const LAST: i32 = 64;

/// The signal of this number, real-time ones included; None where Linux has no such signal.
pub fn from_number(number: i32) -> Option<Signal> {
    if !(1..=LAST).contains(&number) {
        return None;
    }
    // SAFETY: the number is one that the kernel knows. Callers send it to other processes and never install handlers
    // for it, so that those that libc keeps for itself do no harm here.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

/// Blocks every signal that can be, for this thread and what it forks.
pub fn block_all() -> io::Result<()> {
    let all = u64::MAX;
    // SAFETY: the kernel reads 8 bytes of the live value.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            ptr::null::<u64>(),
            8usize,
        )
    })
    .map(drop)
}

/// Has the kernel reap our children, those that are left to us among them, as they end: sigaction(2), SIG_IGN for
/// SIGCHLD.
pub fn leave_children_to_kernel() -> io::Result<()> {
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0];
    // SAFETY: the kernel reads 32 bytes of the live array; SIG_IGN refers to no code.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            libc::SIGCHLD,
            ignore.as_ptr(),
            ptr::null::<u64>(),
            8usize,
        )
    })
    .map(drop)
}

/// Waits for a blocked signal, whichever, and takes it: its number.
///
/// # Errors
/// Interrupted; or what a system call filter says.
pub fn wait_for_any() -> io::Result<i32> {
    let all = u64::MAX;
    // SAFETY: the kernel reads 8 bytes of the live value; a null siginfo is not written, a null timeout waits for ever.
    let number = super::check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const all,
            ptr::null_mut::<libc::siginfo_t>(),
            ptr::null::<libc::timespec>(),
            8usize,
        )
    })?;
    Ok(number as i32)
}
