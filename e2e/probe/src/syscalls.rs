//! System calls by number, as an attacker makes them: the one place in the tests that needs `unsafe` for it.
#![expect(unsafe_code, reason = "no library makes calls that are meant to be wrong")]

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{c_int, c_long};

/// Numbers from here on are nobody's yet.
const END: c_long = 480;
/// It would make the whole machine wait for its disks.
const SKIPPED: [c_long; 1] = [libc::SYS_sync];

/// One call with what makes it work, or at least come as far as its own checks.
fn call(number: c_long, args: [c_long; 6]) -> Result<c_long, c_int> {
    // SAFETY: callers pass numbers, and pointers only as null or as what no address is: the kernel answers EFAULT.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    match result {
        -1 => Err(errno()),
        result => Ok(result),
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Calls that kernels have been attacked through, each so that it works where nothing forbids it, or comes to an errno
/// of its own; what each came to: 0, or the errno.
pub fn attacks() -> BTreeMap<&'static str, c_int> {
    const NEW_USER: c_long = 0x1000_0000;
    const VSOCK: c_long = 40;
    let attacks: [(&str, c_long, [c_long; 6]); _] = [
        (
            "unshare of a user namespace",
            libc::SYS_unshare,
            [NEW_USER, 0, 0, 0, 0, 0],
        ),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 1, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [-1, -1, 0, 0, -3, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, -1, 0, 0, 0, 0]),
        ("socket of AF_VSOCK", libc::SYS_socket, [VSOCK, 1, 0, 0, 0, 0]),
        (
            "socket of AF_VSOCK with upper bits",
            libc::SYS_socket,
            [VSOCK | 1 << 32, 1, 0, 0, 0, 0],
        ),
        // CVE-2026-31431: ciphers that write to the page cache of what they read.
        ("socket of AF_ALG", libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
        ("socket of AF_PACKET", libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
        ("socket of nftables", libc::SYS_socket, [16, 3, 12, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0, -1, 1, -1, 1, 0]),
        ("kcmp", libc::SYS_kcmp, [-1, -1, 0, 0, 0, 0]),
        ("memfd_secret", libc::SYS_memfd_secret, [-1, 0, 0, 0, 0, 0]),
        ("name_to_handle_at", libc::SYS_name_to_handle_at, [-1, -1, -1, -1, 0, 0]),
        ("vmsplice", libc::SYS_vmsplice, [-1, -1, 1, 0, 0, 0]),
        ("fanotify_mark", libc::SYS_fanotify_mark, [-1, 0, 0, -1, -1, 0]),
    ];
    attacks
        .into_iter()
        .map(|(name, number, args)| (name, call(number, args).err().unwrap_or(0)))
        .collect()
}

/// A call of another calling convention (x32's getpid) in a thread of its own; whether the process is still there
/// afterwards.
pub fn foreign() {
    const X32_BIT: c_long = 1 << 30;
    const PATIENCE: Duration = Duration::from_secs(1);
    // Who ends nothing but a thread leaves the channel open.
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        call(X32_BIT | libc::SYS_getpid, [0; 6]).ok();
        drop(done);
    });
    ended.recv_timeout(PATIENCE).ok();
    println!("survived");
}

/// The numbers of the calls that answer something else than EPERM, ENOSYS or death when their arguments make no sense.
pub fn reachable() -> Vec<c_long> {
    (0..END)
        .filter(|number| SKIPPED.contains(number) || is_reachable(*number))
        .collect()
}

/// In a process of its own, which may do to itself whatever it does.
fn is_reachable(number: c_long) -> bool {
    const PATIENCE: Duration = Duration::from_millis(200);
    // SAFETY: this program has one thread; the child makes one call and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The kernel takes 32 bits of it, and filters differ in what they make of the others.
        let wrong = if number == libc::SYS_personality {
            0xffff_ffff
        } else {
            -1
        };
        let code = match call(number, [wrong; 6]) {
            Err(libc::EPERM) => 1,
            Err(libc::ENOSYS) => 2,
            _ => 0,
        };
        // SAFETY: ends the child without a look at what it did to itself.
        unsafe { libc::_exit(code) };
    }
    let begun = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: a live number to be written to; a child of ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if waited == child {
            let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
            let refused = libc::WIFEXITED(status) && matches!(libc::WEXITSTATUS(status), 1 | 2);
            return !killed && !refused;
        }
        if waited == -1 {
            return true;
        }
        if begun.elapsed() > PATIENCE {
            // It waits for something: so it was let through.
            // SAFETY: two numbers.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits for a call that `listener` is told of and lets it pass; its number. None at the end of those that are under
/// the filter.
pub fn let_pass(listener: &OwnedFd) -> Option<c_int> {
    // linux/seccomp.h: struct seccomp_notif is 80 bytes, its id first, the number at 16; seccomp_notif_resp has the id,
    // and its flags in the last four of 24.
    const RECEIVE: u32 = 0xc050_2100;
    const SEND: u32 = 0xc018_2101;
    const CONTINUE: u64 = 1 << 32;
    loop {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live structure.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
        if poll.revents & libc::POLLIN == 0 {
            if poll.revents == 0 {
                continue;
            }
            return None;
        }
        let mut call = [0u64; 10];
        // SAFETY: the kernel fills 80 bytes, which are live and zeroed.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) } == -1 {
            continue;
        }
        let response = [call[0], 0, CONTINUE];
        // SAFETY: the kernel reads 24 live bytes.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) };
        return Some(call[2] as c_int);
    }
}
