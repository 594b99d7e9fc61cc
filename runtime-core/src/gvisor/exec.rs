//! Exec: a process beside a container's first.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::runtime as oci;
use serde::Serialize;

use super::container::{Container, Launched};
use super::create::write_private;
use super::launch::Call;
use super::process::{Process, WAIT_PID};
use super::terminal::{give, terminal};
use super::{Error, command, failing, refusals, spec};
use crate::native::Stdio;
use crate::plan;
use crate::sys::spawn;

const EXECUTE: &str = "containerManager.ExecuteAsync";

/// How long a runsc may take to tell that an exec with a terminal runs.
const EXEC_LIMIT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExecArgs<'a> {
    #[serde(rename = "argv")]
    argv: &'a [String],
    #[serde(rename = "envv")]
    envv: &'a [String],
    #[serde(rename = "wd")]
    wd: &'a str,
    #[serde(rename = "KUID")]
    uid: u32,
    #[serde(rename = "KGID")]
    gid: u32,
    #[serde(rename = "ExtraKGIDs")]
    groups: &'a [u32],
    no_new_privileges: bool,
    capabilities: TaskCapabilities,
    stdio_is_pty: bool,
    #[serde(rename = "GuestFDs")]
    guest_fds: [i32; 3],
    #[serde(rename = "ContainerID")]
    container: &'a str,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct TaskCapabilities {
    permitted_caps: u64,
    inheritable_caps: u64,
    effective_caps: u64,
    bounding_caps: u64,
    ambient_caps: u64,
}

#[derive(Serialize)]
struct WaitPidArgs<'a> {
    #[serde(rename = "PID")]
    pid: i32,
    #[serde(rename = "CID")]
    container: &'a str,
}

impl Container {
    /// Starts a process beside the first.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn exec(&self, process: &plan::Process, given: &oci::Process, stdio: Stdio) -> Result<Launched, Error> {
        if !self.inner().started {
            return Err(self.misplaced(
                "exec",
                "a sentry has no processes before its container was started; start it first",
            ));
        }
        refusals::check_labels(process)?;
        if process.terminal {
            return self.exec_attached(process, given);
        }
        let null = spawn::dev_null().map_err(failing("opening /dev/null"))?;
        let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        for stream in streams.into_iter().flatten() {
            give(stream, process.uid);
        }
        let fds = streams.map(|stream| stream.as_ref().unwrap_or(&null).as_fd());
        let capabilities = process.capabilities.unwrap_or_default();
        let arguments = ExecArgs {
            argv: &process.args,
            envv: &process.env,
            wd: &process.cwd,
            uid: process.uid,
            gid: process.gid,
            groups: &process.groups,
            no_new_privileges: process.no_new_privileges,
            capabilities: TaskCapabilities {
                permitted_caps: capabilities.permitted,
                inheritable_caps: capabilities.inheritable,
                effective_caps: capabilities.effective,
                bounding_caps: capabilities.bounding,
                ambient_caps: capabilities.ambient,
            },
            stdio_is_pty: false,
            guest_fds: [0, 1, 2],
            container: &self.id,
        };
        // The second connection first: nothing may fail any more once the process runs.
        let mut answer = self.sandbox.connect(WAIT_PID)?;
        let pid: i32 = self.sandbox.connect(EXECUTE)?.call(EXECUTE, arguments, &fds)?;
        drop(stdio);
        let wait = WaitPidArgs {
            pid,
            container: &self.id,
        };
        answer.ask(WAIT_PID, wait, &[])?;
        let process = Process::inside(Arc::clone(&self.sandbox), self.id.clone(), pid)?;
        process.follow(answer)?;
        Ok(Launched {
            process: Arc::new(process),
            console: None,
        })
    }

    /// With a terminal: a runsc is its session's leader for as long as it runs, and hands on the terminal's signals.
    /// Only the kernel can say that somebody pressed ^C there, and it says it to such a process.
    fn exec_attached(&self, process: &plan::Process, given: &oci::Process) -> Result<Launched, Error> {
        let number = {
            let mut inner = self.inner();
            inner.execs += 1;
            inner.execs
        };
        let bundle = self.sandbox.directory.bundle(&self.id);
        let description = bundle.join(format!("exec-{number}.json"));
        let pid_file = bundle.join(format!("exec-{number}.pid"));
        let given = serde_json::to_value(given).map_err(|error| failing("writing an exec's process")(error.into()))?;
        write_private(&description, &given)?;
        let (master, slave) = terminal(process.console_size, process.uid)?;
        let slaves = [slave.try_clone(), slave.try_clone()];
        let [stdin, stdout] = slaves;
        let stdio = Stdio {
            stdin: Some(stdin.map_err(failing("duplicating a terminal"))?),
            stdout: Some(stdout.map_err(failing("duplicating a terminal"))?),
            stderr: Some(slave),
        };
        let call = Call {
            command: "exec",
            arguments: self.sandbox.arguments(
                command::exec(&self.id, &description, &pid_file),
                spec::overlay(&self.container, self.sandbox.config.overlay),
            ),
            executable: &self.sandbox.executable,
            runsc: &self.sandbox.runsc,
            files: None,
            cgroup: &self.cgroup,
            console: None,
            terminal: true,
        };
        let running = call.begin(stdio)?;
        let started = Instant::now();
        let outcome = loop {
            // Its pid file appears once the process runs, by a rename.
            if pid_file.exists() {
                break Ok(());
            }
            let ended = running.process.try_wait().map_err(|error| Error::Io {
                operation: "waiting for runsc",
                source: std::io::Error::other(error),
            })?;
            if let Some(status) = ended {
                // It may have been quick.
                break if pid_file.exists() {
                    Ok(())
                } else {
                    Err(running.failure(status))
                };
            }
            if started.elapsed() > EXEC_LIMIT {
                // What is told is that it was too slow, however it ends now.
                let _ = running.process.signal(libc::SIGKILL);
                let _ = running.process.wait();
                break Err(Error::Slow {
                    command: "exec",
                    seconds: EXEC_LIMIT.as_secs(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for path in [&description, &pid_file] {
            // The whole directory goes with the container.
            let _ = std::fs::remove_file(path);
        }
        outcome?;
        let process = Process::attached(Arc::clone(&self.sandbox), self.id.clone(), running.process);
        Ok(Launched {
            process: Arc::new(process),
            console: Some(master),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_is_told_in_the_sentry_s_own_terms() {
        let arguments = ExecArgs {
            argv: &["true".into()],
            envv: &["A=b".into()],
            wd: "/",
            uid: 1,
            gid: 2,
            groups: &[3],
            no_new_privileges: true,
            capabilities: TaskCapabilities {
                bounding_caps: 1,
                ..TaskCapabilities::default()
            },
            stdio_is_pty: false,
            guest_fds: [0, 1, 2],
            container: "c1",
        };
        let found = serde_json::to_value(arguments).unwrap();
        let expected = serde_json::json!({
            "argv": ["true"], "envv": ["A=b"], "wd": "/", "KUID": 1, "KGID": 2, "ExtraKGIDs": [3],
            "NoNewPrivileges": true, "StdioIsPty": false, "GuestFDs": [0, 1, 2], "ContainerID": "c1",
            "Capabilities": {
                "PermittedCaps": 0, "InheritableCaps": 0, "EffectiveCaps": 0, "BoundingCaps": 1, "AmbientCaps": 0,
            },
        });
        assert_eq!(found, expected);
    }
}
