//! What a process is given before its program runs, and how it is waited for.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::plan::{Capabilities, Rlimit, Scheduler};

/// How a child ended, as waitid(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// exit(2)'s status.
    Code(i32),
    /// The signal that ended it.
    Signal(i32),
}

/// Reaps the child of `pidfd` if it has ended.
pub fn try_reap(pidfd: impl AsFd) -> io::Result<Option<Ended>> {
    wait(pidfd, libc::WNOHANG)
}

/// Waits for the end of the child of `pidfd` and reaps it.
pub fn reap(pidfd: impl AsFd) -> io::Result<Ended> {
    loop {
        match wait(pidfd.as_fd(), 0) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait(pidfd: impl AsFd, flags: libc::c_int) -> io::Result<Option<Ended>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
    // __WALL: a child of CLONE_PARENT without an exit signal is waited for like any other.
    let options = libc::WEXITED | libc::__WALL | flags;
    // SAFETY: the kernel writes the live siginfo_t.
    super::check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, options) }.into())?;
    // SAFETY: waitid(2) fills these fields for SIGCHLD, and leaves the zeroes where no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Ended::Code(status)),
        _ => Some(Ended::Signal(status)),
    })
}

/// The pid of some child that has ended, which stays a zombie. ECHILD is no error: there is no child at all.
pub fn ended_child() -> io::Result<Option<i32>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the kernel writes the live siginfo_t.
    match super::check(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) }.into()) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        result => result?,
    };
    // SAFETY: waitid(2) fills the field for SIGCHLD, and leaves the zeroes where no child has ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}

/// Reaps some child that has ended, if there is one (wait4(2)); ECHILD where there is no child at all.
pub fn reap_any() -> io::Result<Option<(i32, Ended)>> {
    let mut status = 0;
    // SAFETY: the kernel writes the live status; no rusage is asked for.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, ptr::null_mut()) };
    let pid = super::check(pid.into())? as i32;
    Ok((pid != 0).then(|| match libc::WIFEXITED(status) {
        true => (pid, Ended::Code(libc::WEXITSTATUS(status))),
        false => (pid, Ended::Signal(libc::WTERMSIG(status))),
    }))
}

/// kill(2), for a child of the caller's that it has not reaped: nobody else can have its pid.
pub fn send_signal_to(child: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two numbers.
    super::check(unsafe { libc::kill(child, signal) }.into()).map(drop)
}

/// Descendants whose parent has ended are this process's children (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: numbers alone.
    super::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Closes every fd from `first` on, whoever owns it: for a process that uses none of them again and ends by
/// [`exit_now`].
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no owner in this process looks at its fd again, by the caller's promise.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// pidfd_send_signal(2).
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a live fd; a null siginfo is kill(2)'s.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    super::check(result).map(drop)
}

/// Sets real, effective and saved ids and the supplementary groups, by raw calls: of this thread, which is the only
/// one.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: pointer and length of one live slice.
        super::check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// capset(2) of the effective, permitted and inheritable sets.
pub fn set_capabilities(sets: &Capabilities) -> io::Result<()> {
    let header = CapHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: the kernel reads a live header and two live data structs, as version 3 has it.
    super::check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Our own effective, permitted and inheritable sets (the other two are zero).
pub fn capabilities() -> io::Result<Capabilities> {
    let header = CapHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: the kernel reads a live header and writes two live data structs.
    super::check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: whole(data[0].effective, data[1].effective),
        permitted: whole(data[0].permitted, data[1].permitted),
        inheritable: whole(data[0].inheritable, data[1].inheritable),
        ..Capabilities::default()
    })
}

fn prctl(option: libc::c_int, a: u64, b: u64) -> io::Result<libc::c_int> {
    // SAFETY: callers pass options whose arguments are numbers.
    Ok(super::check(unsafe { libc::prctl(option, a, b, 0u64, 0u64) }.into())? as libc::c_int)
}

/// Takes `capability` out of the bounding set; an unknown one is no error: it is in no set.
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Whether `capability` is in the bounding set; false for one that the kernel does not know.
pub fn in_bounding(capability: u32) -> bool {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).is_ok_and(|is| is == 1)
}

/// Empties the ambient set, then raises `set`.
pub fn set_ambient(set: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for capability in (0..64).filter(|bit| set >> bit & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability)?;
    }
    Ok(())
}

/// Keeps the permitted set across a change of uid (capabilities(7)).
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// PR_SET_MDWE: from the next execve on, no memory is both writable and executable, or becomes executable (Linux 6.3).
///
/// # Errors
/// EINVAL where the kernel does not know it.
pub fn deny_write_execute() -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0).map(drop)
}

/// PR_SET_DUMPABLE: 0 hides memory, environ and fds from everybody but the host's root.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

/// PR_SET_PDEATHSIG: SIGKILL when the parent, which has one thread, ends.
pub fn end_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).map(drop)
}

/// prlimit(2) of `pid`, 0 for ourselves.
pub fn set_rlimit(pid: i32, limit: &Rlimit) -> io::Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    // SAFETY: the kernel reads a live rlimit64; no old value is asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            limit.resource,
            &raw const new,
            ptr::null_mut::<libc::rlimit64>(),
        )
    };
    super::check(result).map(drop)
}

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2).
pub fn set_scheduler(scheduler: &Scheduler) -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: the kernel reads the live struct, whose size it is told.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// ioprio_set(2) of this process: class << 13 | priority.
pub fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }).map(drop)
}

/// personality(2).
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: one number.
    super::check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// sched_setaffinity(2).
pub fn set_affinity(cpus: &[u32]) -> io::Result<()> {
    let mut mask = [0u64; 128];
    for &cpu in cpus {
        let word = mask
            .get_mut(cpu as usize / 64)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        *word |= 1 << (cpu % 64);
    }
    // SAFETY: the kernel reads the live array.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) }).map(drop)
}

/// keyctl(KEYCTL_JOIN_SESSION_KEYRING): a session keyring of this name, made if it does not exist (session-keyring(7)).
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a live C string.
    super::check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// Makes `terminal` the controlling terminal of this session.
pub fn set_controlling_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    super::check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}

/// Close-on-exec for every fd from `first` on (close_range(2)).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no fd is closed now: owners stay valid until execve ends this program.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// execve(2), with `last` right before it: nothing is allocated in between. Returns execve's error, or that of `last`.
pub fn execute<E>(
    path: &CStr,
    args: &[&CStr],
    env: &[&CStr],
    last: impl FnOnce() -> Result<(), E>,
) -> Result<io::Error, E> {
    let argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let envp: Vec<*const libc::c_char> = env.iter().map(|entry| entry.as_ptr()).chain([ptr::null()]).collect();
    last()?;
    // SAFETY: NUL-terminated arrays of live C strings.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Ok(io::Error::last_os_error())
}

/// Becomes the program that `program` refers to, with no environment, and the fds of `handed` at the numbers beside
/// them; all others close. Returns why not. For a process of ours with one thread that has nothing else left to do:
/// what was at those numbers is gone.
pub fn become_program(program: impl AsFd, argv: &[&CStr], handed: &[(&std::os::fd::OwnedFd, i32)]) -> io::Error {
    /// Above every number that is handed over.
    const ABOVE: i32 = 64;
    let argv: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let envp = [ptr::null::<libc::c_char>()];
    let program = program.as_fd().as_raw_fd();
    let mut moved = Vec::with_capacity(handed.len());
    for (fd, _) in handed {
        match rustix::io::fcntl_dupfd_cloexec(fd, ABOVE) {
            Ok(fd) => moved.push(fd),
            Err(errno) => return errno.into(),
        }
    }
    if let Err(error) = close_on_exec_from(3) {
        return error;
    }
    for (fd, (_, target)) in moved.iter().zip(handed) {
        // SAFETY: two numbers; the caller's promise for whoever owned the target.
        if unsafe { libc::dup2(fd.as_raw_fd(), *target) } == -1 {
            return io::Error::last_os_error();
        }
    }
    // SAFETY: both arrays end with a null pointer and point to live, NUL-terminated strings; on success it never
    // returns.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends this process at once, running nothing that its parent's copy has registered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Makes `streams` the fds 0, 1 and 2 (which survive execve).
pub fn set_streams(streams: [std::os::fd::BorrowedFd<'_>; 3]) -> io::Result<()> {
    for (target, stream) in (0..).zip(streams) {
        // SAFETY: two numbers; the fds 0 to 2 are owned by nobody in particular in the processes that call this.
        super::check(unsafe { libc::dup2(stream.as_raw_fd(), target) }.into())?;
    }
    Ok(())
}

/// Takes over the fd `number`, which the process was started with.
///
/// # Errors
/// EBADF where there is no such fd.
pub fn inherited(number: i32) -> io::Result<std::os::fd::OwnedFd> {
    // SAFETY: fcntl on a number is harmless whatever it is.
    super::check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and callers take each of the documented numbers once, at their start.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// Opens the file that the O_PATH fd `handle` refers to, through `proc`: the host's /proc, opened before any namespace
/// was entered, so that nothing in the container stands between (CVE-2025-52881).
pub fn reopen(proc: impl AsFd, handle: impl AsFd, flags: rustix::fs::OFlags) -> io::Result<std::os::fd::OwnedFd> {
    let path = format!("self/fd/{}", handle.as_fd().as_raw_fd());
    Ok(rustix::fs::openat(proc, path, flags, rustix::fs::Mode::empty())?)
}

/// One of the three standard streams, which every process here has.
pub fn standard_stream(number: i32) -> std::os::fd::BorrowedFd<'static> {
    assert!((0..3).contains(&number), "0, 1 and 2 are the standard streams");
    // SAFETY: these fds are open from the start of every process of ours (see `spawn`) to its end.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}
