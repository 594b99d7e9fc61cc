//! Signal numbers as callers give them.

use rustix::process::Signal;

/// The highest signal number of Linux (`_NSIG`, include/uapi/asm-generic/signal.h).
const LAST: i32 = 64;

/// The signal of this number, real-time ones included; None where Linux has no such signal.
pub fn from_number(number: i32) -> Option<Signal> {
    if !(1..=LAST).contains(&number) {
        return None;
    }
    // SAFETY: the number is one that the kernel knows. Callers send it to other processes and never install handlers for
    // it, so that those that libc keeps for itself do no harm here.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}
