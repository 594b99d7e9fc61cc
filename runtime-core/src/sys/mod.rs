//! Every unsafe block and raw system call, behind safe functions over owned fds.
#![allow(unsafe_code)]

pub mod bpf;
pub mod fork;
pub mod landlock;
pub mod message;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod program;
pub mod release;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod user_namespace;

use std::io;

/// errno's value where a system call returned -1.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
