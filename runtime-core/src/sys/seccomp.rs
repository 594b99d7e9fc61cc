//! seccomp(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::security::seccomp::{FLAG_NEW_LISTENER, Filter, SockFilter};

/// What [`write_marked`] and [`read_marked`] leave in the registers of the arguments that these calls do not have: by
/// it a filter that sees everything knows them. No secret: who else sets it has a write or read of its own left out of
/// a recording.
pub const MARK: u64 = 0x6e75_636c_6575_7321;

/// SECCOMP_SET_MODE_FILTER.
const SET_MODE_FILTER: libc::c_uint = 1;

/// struct sock_fprog of linux/filter.h.
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const SockFilter,
}

// What is handed to the kernel is its own type.
const _: () = assert!(size_of::<SockFilter>() == size_of::<libc::sock_filter>());
const _: () = assert!(size_of::<Program>() == size_of::<libc::sock_fprog>());

/// Puts this thread under `filter`, for good; allocates nothing. The fd is the listener of a filter with
/// [`FLAG_NEW_LISTENER`], close-on-exec.
///
/// # Errors
/// EACCES: neither no_new_privs nor CAP_SYS_ADMIN in the effective set; EINVAL: a flag or an action that the kernel
/// does not know; EBUSY: a listener, where the thread is under one already. See seccomp(2).
pub fn load(filter: &Filter) -> io::Result<Option<OwnedFd>> {
    let len = filter.program.len().try_into();
    let program = Program {
        len: len.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: filter.program.as_ptr(),
    };
    // SAFETY: the kernel copies `len` instructions, which the live vector has and whose layout is its own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            libc::c_ulong::from(filter.flags),
            ptr::from_ref(&program),
        )
    };
    let result = super::check(result)?;
    if filter.flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag a result that is not negative is a new fd, which is nobody else's.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) }))
}

/// write(2) of a whole message, marked; allocates nothing.
pub fn write_marked(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the live slice, and ignores the arguments after its length.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len(), MARK, MARK, MARK) };
    match super::check(written)? {
        length if length as usize == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// read(2) of one byte, marked; None when the other side is gone. Allocates nothing.
pub fn read_marked(socket: impl AsFd) -> io::Result<Option<u8>> {
    let (fd, mut byte) = (socket.as_fd().as_raw_fd(), 0u8);
    // SAFETY: the kernel writes one byte to a live one, and ignores the arguments after that length.
    let read = unsafe { libc::syscall(libc::SYS_read, fd, &raw mut byte, 1usize, MARK, MARK, MARK) };
    Ok((super::check(read)? == 1).then_some(byte))
}

/// struct seccomp_notif of linux/seccomp.h, with struct seccomp_data in it.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction_pointer: u64,
    arguments: [u64; 6],
}

/// struct seccomp_notif_resp.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
const NOTIF_RECV: u32 = 0xc000_2100 | (size_of::<Notification>() as u32) << 16;
const NOTIF_SEND: u32 = 0xc000_2101 | (size_of::<Response>() as u32) << 16;
/// SECCOMP_USER_NOTIF_FLAG_CONTINUE.
const CONTINUE: u32 = 1;

/// Waits for a call that `listener` is told of and lets it pass: its architecture and number. None once no process is
/// left under the filter. What a call's arguments point to may change after it was looked at: this is for looking, not
/// for deciding.
pub fn let_pass(listener: &OwnedFd) -> io::Result<Option<(u32, u32)>> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if !fds[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
        let mut call = Notification::default();
        // SAFETY: the kernel fills the live struct, which has to be zeroed and is.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut call) };
        match super::check(received.into()) {
            Ok(_) => {}
            // ENOENT: the process was killed before we asked.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => continue,
            Err(error) => return Err(error),
        }
        let response = Response {
            id: call.id,
            value: 0,
            error: 0,
            flags: CONTINUE,
        };
        // SAFETY: the kernel reads the live struct.
        let sent = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw const response) };
        match super::check(sent.into()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => return Ok(Some((call.architecture, call.number as u32))),
        }
    }
}

// The numbers are made of the sizes: 80 and 24 bytes on every architecture.
const _: () = assert!(NOTIF_RECV == 0xc050_2100 && NOTIF_SEND == 0xc018_2101);
