//! What the standard library has no words for: ioctl(2) on a device, and ptrace(2).
#![expect(unsafe_code, reason = "no library makes these calls")]

use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// How something went, in a word or in the kernel's.
pub fn said(done: &str, outcome: Result<()>) -> String {
    match outcome {
        Ok(()) => done.to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}

fn check(result: libc::c_long) -> Result<()> {
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

/// RNDGETENTCNT (random(4)), which anybody may ask.
pub fn ioctl(device: &str) -> Result<()> {
    const RNDGETENTCNT: libc::c_ulong = 0x8004_5200;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(device)?;
    let mut count: libc::c_int = 0;
    // SAFETY: a live fd; the kernel writes one int, which is alive.
    check(unsafe { libc::ioctl(file.as_raw_fd(), RNDGETENTCNT as _, &raw mut count) }.into())
}

/// What `strace -p` does: attach, stop, go on.
pub fn trace(pid: libc::pid_t) -> Result<()> {
    let null = std::ptr::null_mut::<libc::c_void>;
    let request = |request: libc::c_uint| {
        // SAFETY: these requests take numbers alone: no memory of ours is read or written.
        check(unsafe { libc::ptrace(request as _, pid, null(), null()) })
    };
    request(libc::PTRACE_SEIZE as _)?;
    request(libc::PTRACE_INTERRUPT as _)?;
    let mut status = 0;
    // SAFETY: the kernel writes one int, which is alive.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into())?;
    request(libc::PTRACE_DETACH as _)
}
