//! Running runsc: the shim's side. Bounded in time, with nothing handed over but what is named here.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::trust::Runsc;
use super::{Error, failing};
use crate::cgroup::Cgroup;
use crate::native::{Executable, ExitStatus, Process, Stdio};
use crate::plan;
use crate::sys::{message, spawn};

/// How long `runsc --version` may take.
pub const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// How long runsc's other verbs may take: a machine that is busy starts a sentry slowly.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of runsc's messages that are read.
const LOG_LIMIT: u64 = 64 << 10;

/// What the launcher is told, as JSON in a memfd.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// runsc's arguments, its name first.
    pub arguments: Vec<String>,
    /// The rootfs and the mounts' sources, where this runsc starts a gofer.
    pub files: Option<Files>,
    /// Whether the last fd is the container's directory in the unified hierarchy.
    pub unified: bool,
    /// Whether the directory of the console's socket comes before the cgroups' files.
    pub console: bool,
    /// Whether stdin is a terminal that becomes runsc's own.
    pub terminal: bool,
}

/// What is mounted before runsc runs, in a mount namespace of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Files {
    /// The rootfs, the mounts, what is masked.
    pub container: plan::Container,
    /// The directory in which the sources of bind mounts appear, each under its name.
    pub mounts: PathBuf,
    /// Their names, in the order of the mounts. Two mounts of one volume that the sentry keeps have the same.
    pub names: Vec<String>,
    /// A file at the top of the rootfs that is removed first, if it is there.
    pub leftover: Option<String>,
}

/// One call of runsc.
#[derive(Debug)]
pub struct Call<'a> {
    /// What it is to do: for errors.
    pub command: &'static str,
    /// All arguments, its name first.
    pub arguments: Vec<String>,
    /// Our binary, that prepares and then becomes runsc.
    pub executable: &'a Executable,
    /// The runsc that was checked.
    pub runsc: &'a Runsc,
    /// What to mount first.
    pub files: Option<Files>,
    /// The cgroup that it and what it starts are in.
    pub cgroup: &'a Cgroup,
    /// The directory with the console's socket.
    pub console: Option<&'a Path>,
    /// Whether stdin becomes its terminal.
    pub terminal: bool,
}

/// A runsc that runs.
#[derive(Debug)]
pub struct Running {
    /// The process: the launcher first, then runsc.
    pub process: Process,
    log: OwnedFd,
    command: &'static str,
}

impl Call<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Error::Runsc`] with its own words, [`Error::Slow`].
    pub fn run(self, stdio: Stdio) -> Result<(), Error> {
        self.begin(stdio)?.finish()
    }

    /// Starts it: when this returns, it is runsc that runs.
    pub fn begin(self, stdio: Stdio) -> Result<Running, Error> {
        let command = self.command;
        let (ours, theirs) = message::pair().map_err(failing("making the launcher's socket"))?;
        let null = spawn::dev_null().map_err(failing("opening /dev/null"))?;
        let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        let streams = streams.map(|stream| stream.as_ref().unwrap_or(&null).as_fd());
        let argv = [c"containerd-shim-nucleus-v2", c"runsc"];
        let fds = [streams[0], streams[1], streams[2], theirs.as_fd()];
        let (pid, pidfd) =
            spawn::spawn(self.executable.fd(), &argv, &fds).map_err(failing("starting runsc's launcher"))?;
        let process = Process::new(pid, pidfd);
        drop((theirs, stdio));

        let log = rustix::fs::memfd_create(c"runsc-log", MemfdFlags::CLOEXEC);
        let log = log.map_err(|errno| failing("making runsc's log")(errno.into()))?;
        let sent = self.tell(&ours, &log);
        let outcome = sent.and_then(|()| {
            let heard = message::receive(&ours);
            let (text, _) = heard.map_err(failing("hearing from runsc's launcher"))?;
            if text.is_empty() {
                return Ok(());
            }
            Err(Error::Launcher {
                command,
                text: String::from_utf8_lossy(&text).into_owned(),
            })
        });
        match outcome {
            Ok(()) => Ok(Running { process, log, command }),
            Err(error) => {
                end(&process);
                Err(error)
            }
        }
    }

    fn tell(self, socket: &OwnedFd, log: &OwnedFd) -> Result<(), Error> {
        let join = self.cgroup.join_files()?;
        let unified = self.cgroup.clone_into()?;
        let directory = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| super::file("opening", path)(errno.into()))
        };
        let console = self.console.map(directory).transpose()?;
        let request = Request {
            arguments: self.arguments,
            files: self.files,
            unified: unified.is_some(),
            console: console.is_some(),
            terminal: self.terminal,
        };
        let request = crate::native::memfd(&request).map_err(failing("writing the launcher's request"))?;
        let fixed = [request.as_fd(), self.runsc.fd().as_fd(), log.as_fd()];
        let rest = console.iter().chain(&join).chain(&unified).map(AsFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = fixed.into_iter().chain(rest).collect();
        match message::send(socket, b"r", &fds) {
            // One that has failed already says why on the same socket.
            Err(source) if source.raw_os_error() == Some(libc::E2BIG) => Err(failing("telling the launcher")(source)),
            _ => Ok(()),
        }
    }
}

impl Running {
    /// Waits for its end.
    pub fn finish(self) -> Result<(), Error> {
        match within(&self.process, LIMIT).map_err(failing("waiting for runsc"))? {
            Some(ExitStatus::Code(0)) => Ok(()),
            Some(status) => Err(self.failure(status)),
            None => Err(Error::Slow {
                command: self.command,
                seconds: LIMIT.as_secs(),
            }),
        }
    }

    /// Why it ended with `status`, in its own words where it left any.
    pub fn failure(&self, status: ExitStatus) -> Error {
        let text = self.words().unwrap_or_else(|| match status {
            ExitStatus::Code(code) => format!("it ended with {code} and said nothing"),
            ExitStatus::Signal(signal) => format!("it was ended by signal {signal}"),
        });
        Error::Runsc {
            command: self.command,
            text,
        }
    }

    fn words(&self) -> Option<String> {
        let mut file = File::from(self.log.try_clone().ok()?);
        file.rewind().ok()?;
        let mut text = Vec::new();
        file.take(LOG_LIMIT).read_to_end(&mut text).ok()?;
        last_error(&String::from_utf8_lossy(&text))
    }
}

/// The last error of a log of JSON lines, else its last line.
fn last_error(log: &str) -> Option<String> {
    let said = |line: &str| -> Option<(String, bool)> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let text = entry.get("msg")?.as_str()?.trim().to_owned();
        Some((text, entry.get("level").and_then(Value::as_str) == Some("error")))
    };
    let entries: Vec<_> = log.lines().filter_map(said).collect();
    let error = entries.iter().rev().find(|(_, is_error)| *is_error);
    error.or(entries.last()).map(|(text, _)| text.clone())
}

/// Waits for the end of a process; ends it where it takes longer than `limit`: None then.
pub fn within(process: &Process, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = process.try_wait().map_err(io::Error::other)? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            end(process);
            return Ok(None);
        }
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(process.pidfd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills and reaps it. The error that is on its way says more than one of these would.
fn end(process: &Process) {
    let _ = process.signal(libc::SIGKILL);
    let _ = process.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_what_is_told() {
        let log = r#"{"msg":"first","level":"error","time":"t"}
{"msg":"creating container: no such file","level":"error","time":"t"}
{"msg":"a warning","level":"warning","time":"t"}
not json"#;
        assert_eq!(last_error(log).as_deref(), Some("creating container: no such file"));
        assert_eq!(
            last_error(r#"{"msg":"only this","level":"info"}"#).as_deref(),
            Some("only this")
        );
        assert_eq!(last_error("nothing\n"), None);
    }
}
