//! Starting our own binary as another process, from a process that may have threads.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::OFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::mount::{MountAttr, set_attributes};

/// Highest number of fds that [`spawn`] hands over.
const MAX_FDS: usize = 16;
/// Stack of the child between clone and execve: it makes a handful of system calls.
const STACK: usize = 16 * 1024;

/// A read-only, detached clone of the mount that holds our own binary: what runs from it cannot be opened for writing,
/// whoever asks and through whichever /proc link (CVE-2019-5736).
pub fn detached_self() -> io::Result<OwnedFd> {
    detached(rustix::fs::CWD, c"/proc/self/exe", OpenTreeFlags::empty())
}

/// The same of the file that `file`, an O_PATH fd, refers to: what is executed from it is what was opened, whatever its
/// path says by then.
pub fn detached_file(file: &OwnedFd) -> io::Result<OwnedFd> {
    detached(file.as_fd(), c"", OpenTreeFlags::AT_EMPTY_PATH)
}

fn detached(directory: BorrowedFd<'_>, path: &CStr, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
    let fd = rustix::mount::open_tree(directory, path, flags)?;
    set_attributes(
        &fd,
        false,
        MountAttr {
            set: super::mount::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        },
    )?;
    Ok(fd)
}

struct Child<'a> {
    exe: RawFd,
    fds: &'a [RawFd],
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    errno: c_int,
}

/// Executes `exe` with `fds` as its fds 0, 1, 2, … and nothing else open, in a session of its own. Returns once the new
/// program runs: the pid and its pidfd.
///
/// The child shares our memory until its execve and we stand still meanwhile (CLONE_VM, CLONE_VFORK): nothing is
/// copied, and nothing of our address space is left in it.
pub fn spawn(exe: BorrowedFd<'_>, argv: &[&CStr], fds: &[BorrowedFd<'_>]) -> io::Result<(i32, OwnedFd)> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let argv: Vec<*const libc::c_char> = argv.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let envp = [ptr::null()];
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut child = Child {
        exe: exe.as_raw_fd(),
        fds: &fds,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        errno: 0,
    };
    let mut stack = vec![0u8; STACK];
    let mut pidfd: c_int = -1;
    // SAFETY: the stack's end, aligned down, is ours until the child has executed or exited, which CLONE_VFORK waits
    // for; `child` and all it points to live as long; the child's function makes system calls alone and never returns
    // to Rust.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK);
        let top = top.sub(top as usize % 16);
        libc::clone(
            run_child,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut child).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this fd for us (CLONE_PIDFD) and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if child.errno != 0 {
        super::process::reap(&pidfd)?;
        return Err(io::Error::from_raw_os_error(child.errno));
    }
    Ok((pid, pidfd))
}

extern "C" fn run_child(arg: *mut c_void) -> c_int {
    // SAFETY: `arg` is the `Child` that spawn() keeps alive and does not touch until we are done. From here on there
    // are system calls only: no allocation, no lock, since the parent's other threads may hold any of them.
    unsafe {
        let child = &mut *arg.cast::<Child<'_>>();
        let mut high = [-1; MAX_FDS];
        let count = child.fds.len();
        for (slot, &fd) in high.iter_mut().zip(child.fds) {
            *slot = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 64);
            if *slot == -1 {
                return fail(child);
            }
        }
        let exe = libc::fcntl(child.exe, libc::F_DUPFD_CLOEXEC, 64);
        if exe == -1 {
            return fail(child);
        }
        for (target, &fd) in high[..count].iter().enumerate() {
            if libc::dup2(fd, target as c_int) == -1 {
                return fail(child);
            }
        }
        let rest = libc::syscall(
            libc::SYS_close_range,
            count as libc::c_uint,
            libc::c_uint::MAX,
            4 as libc::c_uint,
        );
        if rest == -1 || libc::setsid() == -1 {
            return fail(child);
        }
        reset_signals();
        libc::syscall(
            libc::SYS_execveat,
            exe,
            c"".as_ptr(),
            child.argv,
            child.envp,
            libc::AT_EMPTY_PATH,
        );
        fail(child)
    }
}

/// Tells the parent why, and ends the child.
fn fail(child: &mut Child<'_>) -> c_int {
    child.errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Default action for every signal and an empty mask: what a program may expect at its start. Rust's own start-up
/// ignores SIGPIPE, and an ignored signal stays ignored across execve (signal(7)).
pub fn reset_signals() {
    // The kernel's struct sigaction: handler, flags, restorer, mask. All zero is SIG_DFL with nothing else.
    let default = [0u64; 4];
    let none = 0u64;
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads 32 bytes of the live array; SIG_DFL refers to no code.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                8usize,
            );
        }
    }
    // SAFETY: the kernel reads 8 bytes of the live value.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null::<u64>(),
            8usize,
        );
    }
}

/// /dev/null of the host, for standard streams; checked to be it.
pub fn dev_null() -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(
        c"/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    let is_null = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null {
        Ok(fd)
    } else {
        Err(io::Error::other("/dev/null is not the null device"))
    }
}

/// Attaches the detached mount `source` at the directory or file that `target` is.
pub fn attach(source: &OwnedFd, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(source, c"", target, c"", flags)?)
}
