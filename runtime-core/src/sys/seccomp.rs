//! seccomp(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use crate::security::seccomp::{FLAG_NEW_LISTENER, Filter, SockFilter};

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
/// EACCES: neither no_new_privs nor CAP_SYS_ADMIN in the effective set; EINVAL: a flag or an action that the kernel does
/// not know; EBUSY: a listener, where the thread is under one already. See seccomp(2).
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
