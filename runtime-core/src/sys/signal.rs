//! Signal numbers as callers give them; waiting for signals, and hearing of them by a file descriptor.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
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

/// The eventfd of each signal that is watched, by its number; none is -1. It is never closed: a handler may be about to
/// write to it.
static WATCHED: [AtomicI32; LAST as usize + 1] = [const { AtomicI32::new(-1) }; LAST as usize + 1];

/// Has each of `signals` counted by an eventfd from now on, instead of what it does by default: the eventfd, which does
/// not block. A program that is executed has the default again (signal(7)), which would not be so of signals that are
/// blocked for a signalfd.
///
/// # Errors
/// The kernel's.
pub fn watch(signals: &[Signal]) -> io::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let handlers = event.try_clone()?.into_raw_fd();
    for signal in signals {
        WATCHED[signal.as_raw() as usize].store(handlers, Ordering::SeqCst);
        // SAFETY: all zero is a valid sigaction: an empty mask among others.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` is live, and its handler does nothing but what signal-safety(7) allows.
        super::check(unsafe { libc::sigaction(signal.as_raw(), &raw const action, ptr::null_mut()) }.into())?;
    }
    Ok(event)
}

/// The handler: system calls alone, and errno is left as it was.
extern "C" fn count(number: libc::c_int) {
    let event = WATCHED[number as usize].load(Ordering::SeqCst);
    let one = 1u64;
    // SAFETY: errno is this thread's own; the kernel reads 8 bytes of the live value. Where the eventfd has counted all
    // that it can, it is readable already.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(event, (&raw const one).cast(), size_of::<u64>());
        *errno = before;
    }
}

/// Takes what an eventfd of [`watch`] has counted; WouldBlock where that is nothing.
///
/// # Errors
/// The kernel's.
pub fn take(event: impl AsFd) -> io::Result<()> {
    let mut count = [0; size_of::<u64>()];
    rustix::io::read(event, &mut count)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_signal_is_counted_and_taken_once() {
        // Of no other test.
        let event = watch(&[Signal::WINCH]).unwrap();
        assert_eq!(take(&event).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for _ in 0..2 {
            rustix::process::kill_process(rustix::process::getpid(), Signal::WINCH).unwrap();
        }
        let mut fds = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
        assert_eq!(
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).unwrap(),
            1
        );
        take(&event).unwrap();
    }
}
