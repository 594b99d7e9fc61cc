//! Logging programs (`binary://`): they read a container's output from their fds 3 and 4, and say on fd 5 that they are
//! ready. The convention is containerd's (core/runtime/v2 "binary" logging, package v2/core/runtime/v2/logging).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use runtime_core::sys::program::start_program;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::error::Error;
use super::uri::Binary;
use super::watch::watch;
use crate::reaper::Child;

/// How long a program may take until it says that it is ready. The runc shim waits for ever.
const READY: Duration = Duration::from_secs(10);
/// How long a program may take, once its pipes are closed, to end by itself.
const END: Duration = Duration::from_secs(1);
/// How long a program may take after SIGTERM until it is killed: the runc shim's time.
const TERMINATE: Duration = Duration::from_secs(12);

/// A logging program that runs. Dropped without [`Logger::end`], it is killed.
#[derive(Debug)]
pub(super) struct Logger {
    program: PathBuf,
    pidfd: AsyncFd<OwnedFd>,
    /// Reaped by us while we are there.
    _child: Child,
}

impl Logger {
    /// Starts the program, which reads `stdout` and `stderr`, and waits until it is ready. Its environment is
    /// CONTAINER_ID and CONTAINER_NAMESPACE alone.
    pub async fn start(
        binary: Binary,
        id: &str,
        namespace: &str,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Self, Error> {
        let program = binary.path.clone();
        let failed = |operation, source| Error::Logger {
            operation,
            program: program.clone(),
            source,
        };
        let (ready, theirs) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make a pipe for", errno.into()))?;
        let started = Self::execute(&binary, id, namespace, [&stdout, &stderr, &theirs]);
        let logger = started.map_err(|source| failed("start", source))?;
        // Their ends are theirs alone from here on, so that the end of one is seen by the other.
        drop((stdout, stderr, theirs));
        let said = match timeout(READY, read_ready(ready)).await {
            Err(_) => {
                return Err(Error::LoggerSilent {
                    program: binary.path,
                    limit: READY,
                });
            }
            Ok(said) => said.map_err(|source| failed("wait for", source))?,
        };
        // A program of before binary-v2 may close the pipe without a word.
        if binary.strict && !said {
            return Err(Error::LoggerNotReady { program: binary.path });
        }
        Ok(logger)
    }

    fn execute(binary: &Binary, id: &str, namespace: &str, [stdout, stderr, ready]: [&OwnedFd; 3]) -> io::Result<Self> {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        let path = CString::new(binary.path.as_os_str().as_encoded_bytes())?;
        let args: Vec<CString> = binary
            .args
            .iter()
            .map(|arg| CString::new(arg.as_str()))
            .collect::<Result<_, _>>()?;
        let argv: Vec<&CStr> = [path.as_c_str()]
            .into_iter()
            .chain(args.iter().map(CString::as_c_str))
            .collect();
        let id = CString::new(format!("CONTAINER_ID={id}"))?;
        let namespace = CString::new(format!("CONTAINER_NAMESPACE={namespace}"))?;
        let null = null.as_fd();
        let fds = [null, null, null, stdout.as_fd(), stderr.as_fd(), ready.as_fd()];
        let (pid, pidfd) = start_program(&path, &argv, &[&id, &namespace], &fds)?;
        let child = Child::register(pid);
        let pidfd = watch(pidfd, Interest::READABLE)?;
        Ok(Self {
            program: binary.path.clone(),
            pidfd,
            _child: child,
        })
    }

    /// Ends the program, whose pipes have been closed: it may end by itself, then it is asked to, then it is killed.
    pub async fn end(self) {
        if timeout(END, self.ended()).await.is_ok() {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(TERMINATE, self.ended()).await.is_err() {
            log::warn!(
                "logging program {:?} did not end within {TERMINATE:?} of SIGTERM: killed",
                self.program
            );
        }
        // What is still there, drop kills.
    }

    /// Waits for its end (pidfd_open(2): readable from then on).
    async fn ended(&self) {
        if let Err(error) = self.pidfd.readable().await {
            log::warn!("wait for logging program {:?}: {error}", self.program);
        }
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => log::warn!("signal {signal:?} to logging program {:?}: {errno}", self.program),
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Whoever reaps orphans may have been faster, or will do it when it has ended: a pidfd does not mind.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
            Ok(_) | Err(Errno::CHILD) => {}
            Err(errno) => log::warn!("reap logging program {:?}: {errno}", self.program),
        }
    }
}

/// Whether a byte came before the end.
async fn read_ready(pipe: OwnedFd) -> io::Result<bool> {
    let pipe = watch(pipe, Interest::READABLE)?;
    loop {
        let mut guard = pipe.readable().await?;
        match rustix::io::read(pipe.get_ref(), &mut [0u8; 1]) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
