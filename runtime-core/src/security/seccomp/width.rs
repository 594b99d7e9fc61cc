//! Arguments that the kernel takes as 32 bits although a register has 64.
//!
//! A filter sees the whole register. `socket(0x1_0000_0028, …)` is AF_VSOCK to the kernel and is not 40 to a comparison
//! of 64 bits: a rule that denies 40 would let it pass. So it went with TIOCSTI and ioctl (CVE-2019-10063). On these
//! arguments a value that fits into 32 bits is compared with the lower 32 bits alone.

/// Whether the kernel looks at no more than the lower 32 bits of the argument `index` of `name`: its type is `int`,
/// `unsigned int` or narrower in the kernel's SYSCALL_DEFINE on every architecture.
pub fn is_int(name: &str, index: u8) -> bool {
    let arguments: &[u8] = match name {
        "socket" | "socketpair" => &[0, 1, 2],
        "setsockopt" | "getsockopt" => &[0, 1, 2],
        "accept4" => &[0, 3],
        "bind" | "connect" | "getsockname" | "getpeername" | "accept" => &[0],
        "listen" | "shutdown" => &[0, 1],
        "sendto" | "recvfrom" => &[0, 3],
        "sendmsg" | "recvmsg" => &[0, 2],
        "sendmmsg" | "recvmmsg" => &[0, 2, 3],
        "ioctl" | "fcntl" => &[0, 1],
        "personality" | "syslog" | "umask" | "iopl" | "close" | "dup" | "exit" | "exit_group" | "epoll_create" => &[0],
        "prctl" | "keyctl" | "bpf" | "memfd_secret" | "pkey_free" | "setfsuid" | "setfsgid" => &[0],
        "seccomp" | "setns" | "pidfd_open" | "inotify_init1" | "kill" | "tkill" | "eventfd2" | "dup2" => &[0, 1],
        "tgkill" | "dup3" | "close_range" | "setresuid" | "setresgid" => &[0, 1, 2],
        "setuid" | "setgid" | "userfaultfd" | "epoll_create1" => &[0],
        "setreuid" | "setregid" | "ioprio_get" => &[0, 1],
        "ioprio_set" => &[0, 1, 2],
        "memfd_create" | "delete_module" => &[1],
        "open" | "access" | "pipe2" => &[1],
        "openat" => &[0, 2],
        "faccessat" => &[0, 2],
        "fsopen" | "swapon" => &[1],
        "fsmount" => &[0, 1, 2],
        "fsconfig" => &[0, 1, 4],
        "fspick" | "open_tree" => &[0, 2],
        "move_mount" => &[0, 2, 4],
        "umount2" => &[1],
        "io_uring_setup" => &[0],
        "io_uring_enter" => &[0, 1, 2, 3],
        "io_uring_register" => &[0, 1, 3],
        "quotactl" => &[0, 2],
        "sched_setscheduler" => &[0, 1],
        "sched_setattr" => &[0, 2],
        "setpriority" | "getpriority" => &[0, 1],
        "prlimit64" => &[0, 1],
        "setrlimit" | "getrlimit" => &[0],
        "clock_settime" | "clock_adjtime" | "clock_gettime" | "clock_getres" => &[0],
        "clock_nanosleep" => &[0, 1],
        "futex" => &[1],
        "madvise" => &[2],
        "mlockall" => &[0],
        "kcmp" => &[0, 1, 2],
        "reboot" => &[0, 1, 2],
        "finit_module" => &[0, 2],
        _ => &[],
    };
    arguments.contains(&index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_s_family_has_32_bits_and_the_flags_of_clone_have_not() {
        assert!(is_int("socket", 0) && is_int("ioctl", 1) && is_int("personality", 0));
        assert!(!is_int("clone", 0) && !is_int("unshare", 0) && !is_int("ioctl", 2) && !is_int("ptrace", 0));
    }
}
