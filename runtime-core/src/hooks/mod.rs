//! Hooks: programs of the node's owner, run at certain moments of a container's life (OCI runtime spec, "POSIX-platform
//! Hooks").
//!
//! A hook runs with the rights of whoever runs the containers, so its file has to be root's alone: the rules of
//! CVE-2024-0132 and CVE-2025-23266's kind. It gets the environment that the spec gives and nothing of ours.

mod file;
mod output;
mod state;

pub use state::State;

use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use output::Tail;

use crate::plan::Hook;
use crate::sys::process::{Ended, close_on_exec_from, try_reap};

/// How long a killed hook may take to be gone: only a process inside the kernel takes any time at all.
const DEATH_LIMIT: Duration = Duration::from_secs(5);
/// Why a hook failed. Each variant names its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The file, or a directory above it, is not such that only root can have put it there.
    #[error("hook {} is not run: {what}", path.display())]
    Refused { path: PathBuf, what: &'static str },
    /// A step before or beside the hook's own run failed.
    #[error("cannot {operation} for hook {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// It could not be executed.
    #[error("cannot execute hook {}", path.display())]
    Execute { path: PathBuf, source: io::Error },
    /// It ended, and not well.
    #[error("hook {} ended with {status}{}", path.display(), Said(output))]
    Failed {
        path: PathBuf,
        status: String,
        output: String,
    },
    /// It did not end in time and was killed, with its process group.
    #[error("hook {} was killed: it did not end within {seconds} s{}", path.display(), Said(output))]
    TimedOut {
        path: PathBuf,
        seconds: u32,
        output: String,
    },
    /// Somebody else in this process has waited for it, so that nobody knows how it ended.
    #[error("hook {} has ended, and its exit status is lost{}", path.display(), Said(output))]
    Lost { path: PathBuf, output: String },
}

struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "; its output: {}", self.0)
        }
    }
}

/// Pids of hooks that run now. A process that reaps orphans by waiting for any child must leave these alone.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Whether the child `pid` of this process is a hook that [`run`] waits for itself. Never wrong about a child that was
/// seen by waitid(2) before this was asked: a hook is known from before its start until after its reaping.
pub fn owns(pid: i32) -> bool {
    running().contains(&pid)
}

fn running() -> MutexGuard<'static, Vec<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one hook to its end: `state` on its stdin, `cwd` its working directory, its own process group, no fds of ours,
/// the spec's environment alone. Blocks, for as long as the hook's time limit at most.
///
/// # Errors
/// [`Error`]; a hook that fails ends with anything but exit status 0.
pub fn run(hook: &Hook, state: &[u8], cwd: &Path) -> Result<(), Error> {
    let io = |operation| {
        move |source| Error::Io {
            operation,
            path: hook.path.clone(),
            source,
        }
    };
    file::check(&hook.path)?;
    if !cwd.is_dir() {
        return Err(io("enter the working directory")(io::ErrorKind::NotADirectory.into()));
    }
    let stdin = stdin(state).map_err(io("write the container's state"))?;
    let (mut reader, writer) = io::pipe().map_err(io("make a pipe"))?;
    let stderr = writer.try_clone().map_err(io("make a pipe"))?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| io("make a pipe")(error.into()))?;
    // Ours are all close-on-exec by the way they were opened; what somebody left open for us is not (CVE-2024-21626).
    close_on_exec_from(3).map_err(io("keep our fds away"))?;

    let mut command = Command::new(&hook.path);
    command
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command
        .current_dir(cwd)
        .process_group(0)
        .stdin(stdin)
        .stdout(writer)
        .stderr(stderr);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    let deadline = Instant::now() + Duration::from_secs(hook.timeout.into());
    let child = Child::spawn(&mut command).map_err(|source| Error::Execute {
        path: hook.path.clone(),
        source,
    })?;
    // The command holds the pipe's other end.
    drop(command);

    let mut output = Tail::default();
    let in_time = child
        .until(deadline, Some(&mut reader), &mut output)
        .map_err(io("wait"))?;
    if !in_time {
        child.kill();
        child
            .until(Instant::now() + DEATH_LIMIT, None, &mut output)
            .map_err(io("wait"))?;
    }
    let ended = child.reap();
    output.take_from(&mut reader);
    let (path, output) = (hook.path.clone(), output.into_text());
    match ended {
        _ if !in_time => Err(Error::TimedOut {
            path,
            seconds: hook.timeout,
            output,
        }),
        Ok(Some(Ended::Code(0))) => Ok(()),
        Ok(Some(Ended::Code(code))) => Err(Error::Failed {
            path,
            status: format!("exit status {code}"),
            output,
        }),
        Ok(Some(Ended::Signal(signal))) => Err(Error::Failed {
            path,
            status: format!("signal {signal}"),
            output,
        }),
        Ok(None) | Err(_) => Err(Error::Lost { path, output }),
    }
}

/// The state as a file in memory: it never blocks whoever writes it, and a hook that does not read it leaves no trace.
fn stdin(state: &[u8]) -> io::Result<Stdio> {
    let mut file = std::fs::File::from(memfd_create(c"container-state", MemfdFlags::CLOEXEC)?);
    file.write_all(state)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// A hook's process, known to [`owns`] for as long as it is anybody's to reap.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        // Held over the start, so that a reaper which sees the child already waits until it is known to be ours.
        let mut running = running();
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => {
                running.push(pid.as_raw_pid());
                Ok(Self { pid, pidfd })
            }
            Err(error) => {
                // No fd is left for it: without one it cannot be watched, so it must not run.
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Waits until the process has ended, reading what it says meanwhile; false where the deadline came first.
    fn until(&self, deadline: Instant, mut reader: Option<&mut io::PipeReader>, output: &mut Tail) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(reader.as_deref().map(|reader| PollFd::new(reader, PollFlags::IN)));
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [ended, readable] = [0, 1].map(|index| fds.get(index).is_some_and(|fd| !fd.revents().is_empty()));
            if ended {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            if readable && !reader.as_deref_mut().is_some_and(|reader| output.take_from(reader)) {
                // End of file: it closed its output and works on in silence.
                reader = None;
            }
        }
    }

    fn kill(&self) {
        // ESRCH: it ended by itself at the last moment.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Reaps it; None where it has not ended even now.
    fn reap(self) -> io::Result<Option<Ended>> {
        let mut running = running();
        let ended = try_reap(&self.pidfd);
        // Forgotten under the same lock: the pid may be somebody else's from here on, or, if it is stuck in the kernel,
        // whoever reaps orphans will reap this one too.
        running.retain(|&pid| pid != self.pid.as_raw_pid());
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell, as its file: /bin/sh itself is a link nearly everywhere.
    fn shell(script: &str) -> Hook {
        let path = std::fs::canonicalize("/bin/sh").unwrap();
        let args = ["sh", "-c", script].map(String::from).to_vec();
        Hook {
            path,
            args,
            env: vec!["A=1".into()],
            timeout: 10,
        }
    }

    fn said(script: &str) -> Error {
        run(&shell(script), b"state", Path::new("/")).unwrap_err()
    }

    #[test]
    fn a_hook_reads_the_state_and_nothing_else_reaches_it() {
        run(&shell("[ \"$(cat)\" = state ]"), b"state", Path::new("/")).unwrap();
        run(&shell("[ \"$(cat /dev/stdin)\" = state ]"), b"state", Path::new("/")).unwrap();
        let error = said("env | grep -v ^PWD= | sort; pwd; exit 3").to_string();
        let lines: Vec<&str> = error.split("; its output: ").nth(1).unwrap().lines().collect();
        assert!(lines.starts_with(&["A=1"]) && lines.ends_with(&["/"]), "{error}");
        assert!(!error.contains("CARGO"), "{error}");
    }

    #[test]
    fn no_fd_of_ours_reaches_a_hook() {
        let kept = std::fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
        let error = said("ls /proc/self/fd; exit 1").to_string();
        // The last one is ls's own.
        assert!(error.ends_with("its output: 0\n1\n2\n3"), "{error}");
    }

    #[test]
    fn a_failure_tells_the_path_the_status_and_the_output() {
        let path = shell("").path.display().to_string();
        assert_eq!(
            said("echo out; echo err >&2; exit 3").to_string(),
            format!("hook {path} ended with exit status 3; its output: out\nerr")
        );
        assert_eq!(
            said("kill -TERM $$").to_string(),
            format!("hook {path} ended with signal 15")
        );
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_all_its_group() {
        let mut hook = shell("sleep 3600 & echo $!; sleep 3600");
        hook.timeout = 1;
        let started = Instant::now();
        let Error::TimedOut { seconds: 1, output, .. } = run(&hook, b"", Path::new("/")).unwrap_err() else {
            panic!()
        };
        assert!(started.elapsed() < Duration::from_secs(5));
        let sleeper = Pid::from_raw(output.parse().unwrap()).unwrap();
        // It was not our child: whoever adopted it reaps it, or it is a zombie until then. Killed is not yet gone.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", sleeper.as_raw_pid())).unwrap_or_default();
        let lives = |state: &str| !state.is_empty() && !state.contains(") Z ");
        while lives(&state()) && started.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        let state = state();
        assert!(!lives(&state), "{state}");
    }

    #[test]
    fn a_hook_that_prints_ten_megabytes_and_reads_nothing_ends_and_only_the_end_is_kept() {
        let state = vec![b'x'; 1 << 20];
        let script = "head -c 10000000 /dev/zero | tr '\\0' x; echo the end; exit 1";
        let error = run(&shell(script), &state, Path::new("/")).unwrap_err().to_string();
        assert!(
            error.ends_with("xxx\nthe end") || error.ends_with("xxxthe end"),
            "{}",
            error.len()
        );
        assert!(error.len() < output::KEPT + 200, "{}", error.len());
    }

    #[test]
    fn a_child_that_keeps_the_output_open_does_not_hold_a_hook_up() {
        let started = Instant::now();
        let mut hook = shell("sleep 3 & exit 0");
        hook.timeout = 2;
        run(&hook, b"", Path::new("/")).unwrap();
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_running_hook_is_known_to_whoever_reaps_orphans() {
        let directory = tempfile::tempdir().unwrap();
        let hook = shell("echo $$ > new; mv new pid; until [ -e go ]; do sleep 0.01; done");
        let cwd = directory.path().to_owned();
        let runner = std::thread::spawn(move || run(&hook, b"", &cwd));
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = loop {
            match std::fs::read_to_string(directory.path().join("pid")) {
                Ok(text) => break text.trim().parse().unwrap(),
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert!(owns(pid));
        std::fs::write(directory.path().join("go"), "").unwrap();
        runner.join().unwrap().unwrap();
        assert!(!owns(pid));
        assert!(!owns(i32::MAX));
    }

    #[test]
    fn links_missing_files_and_directories_are_refused_by_path() {
        let hook = |path: &str| Hook {
            path: path.into(),
            args: vec![],
            env: vec![],
            timeout: 1,
        };
        let refused = |path: &str| run(&hook(path), b"", Path::new("/")).unwrap_err().to_string();
        assert_eq!(
            refused("/nonexistent/x"),
            "cannot open the directory for hook /nonexistent/x"
        );
        assert_eq!(refused("/nonexistent"), "cannot open the file for hook /nonexistent");
        assert_eq!(refused("/etc"), "hook /etc is not run: it is not a regular file");
        assert_eq!(
            refused("bin/true"),
            "hook bin/true is not run: its path is not absolute"
        );
        assert_eq!(refused("/"), "hook / is not run: its path names no file");
        let error = refused("/proc/self/exe");
        assert_eq!(
            error,
            "hook /proc/self/exe is not run: it is a symbolic link; give the path of the file itself"
        );
        let error = run(&shell(""), b"", Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot enter the working directory for hook /"),
            "{error}"
        );
    }
}
