//! Starting another program, with chosen fds and nothing of ours.

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Sources are moved above this first, so that no target overwrites a source that is still needed.
const ABOVE_TARGETS: i32 = 64;

/// Executes the file at `path` with `argv` and `env`, and `fds` as its fds 0, 1, 2, … Signals are as a program expects
/// them at its start. Every other fd of ours has to be close-on-exec. Returns its pid and pidfd; reaping it is the
/// caller's.
///
/// posix_spawn(3) copies none of our memory and reports a failing execve as its own error.
///
/// # Errors
/// Those of posix_spawn(3), dup(2) and pidfd_open(2).
pub fn start_program(path: &CStr, argv: &[&CStr], env: &[&CStr], fds: &[BorrowedFd<'_>]) -> io::Result<(i32, OwnedFd)> {
    let sources: Vec<OwnedFd> = fds
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, ABOVE_TARGETS))
        .collect::<Result<_, _>>()?;
    let argv = pointers(argv);
    let env = pointers(env);
    let mut actions = MaybeUninit::uninit();
    let mut attributes = MaybeUninit::uninit();
    let mut pid = 0;
    // SAFETY: both objects are initialised before anything else uses them and destroyed after the last use; every
    // pointer is to a live, NUL-terminated string or to an array that ends with a null pointer; posix_spawn keeps none
    // of them.
    let result = unsafe {
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        if let Err(error) = check(libc::posix_spawnattr_init(attributes.as_mut_ptr())) {
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            return Err(error);
        }
        let result = fill(actions.as_mut_ptr(), attributes.as_mut_ptr(), &sources).and_then(|()| {
            let (actions, attributes) = (actions.as_ptr(), attributes.as_ptr());
            check(libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                actions,
                attributes,
                argv.as_ptr(),
                env.as_ptr(),
            ))
        });
        libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        result
    };
    result?;
    let id = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    // Our own child that nobody has reaped: the pid is still its own.
    Ok((pid, pidfd_open(id, PidfdFlags::empty())?))
}

/// # Safety
/// `actions` and `attributes` are initialised.
unsafe fn fill(
    actions: *mut libc::posix_spawn_file_actions_t,
    attributes: *mut libc::posix_spawnattr_t,
    sources: &[OwnedFd],
) -> io::Result<()> {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: the caller's promise; the signal set is written by sigfillset or sigemptyset before it is read.
    unsafe {
        for (target, source) in sources.iter().enumerate() {
            let target = c_int::try_from(target).map_err(io::Error::other)?;
            check(libc::posix_spawn_file_actions_adddup2(
                actions,
                source.as_raw_fd(),
                target,
            ))?;
        }
        // Rust's start-up ignores SIGPIPE, and what is ignored stays so across execve (signal(7)).
        libc::sigfillset(signals.as_mut_ptr());
        check(libc::posix_spawnattr_setsigdefault(attributes, signals.as_ptr()))?;
        libc::sigemptyset(signals.as_mut_ptr());
        check(libc::posix_spawnattr_setsigmask(attributes, signals.as_ptr()))?;
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        check(libc::posix_spawnattr_setflags(attributes, flags as libc::c_short))
    }
}

fn pointers(strings: &[&CStr]) -> Vec<*mut c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect()
}

/// The posix_spawn family returns an errno instead of setting it.
fn check(errno: c_int) -> io::Result<()> {
    if errno == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(errno))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_program_gets_its_arguments_environment_fds_and_default_signals() {
        let null = File::open("/dev/null").unwrap();
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let script = c"echo $0 $A >&3; kill -PIPE $$; echo alive >&3";
        let argv = [c"sh", c"-c", script, c"zero"];
        let fds = [null.as_fd(), null.as_fd(), null.as_fd(), writer.as_fd()];
        let (pid, pidfd) = start_program(c"/bin/sh", &argv, &[c"A=b", c"PATH=/bin:/usr/bin"], &fds).unwrap();
        drop(writer);
        let mut said = String::new();
        File::from(reader).read_to_string(&mut said).unwrap();
        assert_eq!(said, "zero b\n");
        let wait = rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        assert!(pid > 0 && wait.unwrap().unwrap().terminating_signal() == Some(libc::SIGPIPE));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = start_program(c"/nonexistent", &[c"x"], &[], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
