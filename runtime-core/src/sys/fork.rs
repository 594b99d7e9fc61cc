//! Forking a sibling: a child of our parent, for the holder alone.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// linux/sched.h; libc has it as a type that overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the fork one is on.
#[derive(Debug)]
pub enum Fork {
    /// The caller: the new process's pid in our PID namespace, and its pidfd.
    Parent(i32, OwnedFd),
    /// The new process.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with `flags` beside CLONE_PIDFD (clone(2)).
///
/// # Errors
/// The kernel's; EINVAL where the process has more than one thread, since a fork of such a process may not allocate.
pub fn fork(flags: u64) -> io::Result<Fork> {
    fork_into(flags, None)
}

/// [`fork`], with the child in the cgroup v2 directory `cgroup` from the first moment (CLONE_INTO_CGROUP).
fn fork_into(flags: u64, cgroup: Option<&OwnedFd>) -> io::Result<Fork> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut pidfd: libc::c_int = -1;
    let signal = if flags & libc::CLONE_PARENT as u64 == 0 {
        libc::SIGCHLD as u64
    } else {
        0
    };
    let args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64 | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: signal,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and with one thread this is fork(2): the child has a whole copy of a consistent address
    // space. `args` and `pidfd` are live.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match super::check(pid)? {
        0 => Ok(Fork::Child),
        // SAFETY: the kernel made this fd for us (CLONE_PIDFD).
        pid => Ok(Fork::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// A child of our own parent, as clone(2)'s CLONE_PARENT makes it: it is for the parent to wait for.
pub fn fork_sibling(cgroup: Option<&OwnedFd>) -> io::Result<Fork> {
    fork_into(libc::CLONE_PARENT as u64, cgroup)
}

fn is_single_threaded() -> io::Result<bool> {
    // After a setns into another PID namespace's /proc there may be no /proc/self; CLONE_FS with unshare(CLONE_VM) is
    // the kernel's own test: EINVAL where the address space has other threads. SAFETY: unshare(CLONE_THREAD) changes
    // nothing: it succeeds only in a process of one thread.
    let result = unsafe { libc::unshare(libc::CLONE_THREAD) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        Ok(false)
    } else {
        Err(error)
    }
}
