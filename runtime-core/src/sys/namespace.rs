//! Making and entering namespaces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// unshare(2).
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: CLONE_FILES and CLONE_VM are not among the flags that callers here use: no Rust object changes its
    // meaning.
    super::check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// setns(2) into the namespace of `kind` (CLONE_NEW*) that `fd` refers to.
pub fn enter(fd: impl AsFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a live fd; the call changes what later system calls see, no memory.
    super::check(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kind) }.into()).map(drop)
}

/// The PID namespace that this process' next child will be in, also where nobody is in it yet (pidfs, Linux 6.11).
///
/// # Errors
/// ENOTTY on older kernels.
pub fn pid_namespace_of_children() -> io::Result<OwnedFd> {
    /// _IO(PIDFS_IOCTL_MAGIC, 6) of linux/pidfd.h.
    const PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE: libc::c_ulong = 0xff06;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    // SAFETY: a live fd, and a request without an argument.
    let fd = unsafe { libc::ioctl(own.as_raw_fd(), PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE as _, 0) };
    let fd = super::check(fd.into())?;
    // SAFETY: a new fd (close-on-exec: nsfs opens them so), which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// The user namespace that owns the namespace `fd` refers to (ioctl_ns(2), NS_GET_USERNS).
pub fn owner(fd: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: a live fd; the call takes no argument and makes a new fd (with close-on-exec).
    let owner = super::check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::NS_GET_USERNS) }.into())?;
    // SAFETY: the kernel made this fd for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(owner as i32) })
}

/// sethostname(2).
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one live str.
    super::check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// setdomainname(2).
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one live str.
    super::check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Brings the loopback interface of the current network namespace up (netdevice(7)).
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the live ifreq.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into())
        .map(drop)
}
