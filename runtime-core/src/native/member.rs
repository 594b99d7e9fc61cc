//! The first process of a scope: systemd makes none without a process in it, and init is forked into the cgroup, so it
//! comes later. A process of our own binary that does nothing holds the place for those milliseconds; that of a
//! container that joins a sentry until it is started, since nothing of it is on the host before.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::{Error, Executable, Process, io};
use crate::sys::{process, spawn};

/// The word on the command line that makes a member of our program; see [`member_main`].
pub const ACTION: &str = "member";

/// A process that waits until it is ended, or we are gone.
#[derive(Debug)]
pub(crate) struct Member {
    process: Process,
    /// Its standard input ends with this.
    end: OwnedFd,
}

impl Member {
    pub fn spawn(exe: &Executable, id: &str) -> Result<Self, Error> {
        let (input, end) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| io("making the pipe of a scope's first process")(errno.into()))?;
        let null = spawn::dev_null().map_err(io("opening /dev/null"))?;
        let id = CString::new(id).map_err(|error| io("naming a scope's first process")(error.into()))?;
        let argv = [c"containerd-shim-nucleus-v2", c"member", c"-id", id.as_c_str()];
        let fds = [input.as_fd(), null.as_fd(), null.as_fd()];
        let (pid, pidfd) = spawn::spawn(exe.0.as_fd(), &argv, &fds).map_err(io("starting a scope's first process"))?;
        Ok(Self {
            process: Process::new(pid, pidfd),
            end,
        })
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Ends it and waits for that: it must not count among the container's processes.
    pub fn end(self) -> Result<(), Error> {
        drop(self.end);
        // A frozen or starved one would not read the end of its input.
        self.process.signal(libc::SIGKILL)?;
        self.process.wait().map(drop)
    }
}

/// The member's program: waits for the end of its input. Never returns.
pub fn member_main() -> ! {
    let mut byte = [0];
    while let Ok(1..) | Err(rustix::io::Errno::INTR) = rustix::io::read(process::standard_stream(0), &mut byte) {}
    process::exit_now(0)
}
