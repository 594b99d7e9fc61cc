//! A created container: start, exec, delete.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use super::child::{forked, limit_from_outside, streams};
use super::lifecycle_hooks::{poststop, run_hooks, state_of};
use super::listener::Of;
use super::recorder::Recorder;
use super::wire::{self, Message, Tag};
use super::{Error, Launched, Process, Stdio, io};
use crate::cgroup::Cgroup;
use crate::hooks;
use crate::plan::{self, Namespace};
use crate::record::Record;
use crate::sys::{message, process, spawn};

/// How long delete waits for processes to leave the cgroups.
pub(super) const CGROUP_DELETE_LIMIT: Duration = Duration::from_secs(5);

/// A created container. Dropping it without [`Container::delete`] leaves clean-up to [`super::clean`].
#[derive(Debug)]
pub struct Container {
    pub(super) container: plan::Container,
    pub(super) cgroup: Cgroup,
    pub(super) holder: Process,
    pub(super) control: OwnedFd,
    /// Init's process socket: taken by start.
    pub(super) waiting: Mutex<Option<OwnedFd>>,
    pub(super) init: i32,
    pub(super) init_pidfd: OwnedFd,
    /// Who has the listeners of init's and of execs' filters.
    pub(super) listener: Option<plan::Listener>,
    pub(super) recorder: Option<Recorder>,
    pub(super) deleted: Mutex<bool>,
}

impl Container {
    /// Lets init execute its program (startContainer hooks before, poststart after).
    ///
    /// # Errors
    /// Why the program could not be executed; init has ended then.
    pub fn start(&self) -> Result<(), Error> {
        let socket = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let Some(socket) = socket else {
            return Err(Error::Setup(format!(
                "container {} was started before",
                self.container.id
            )));
        };
        if wire::send(&socket, Tag::Go, &[], &[]).is_err() {
            return Err(Error::Ended {
                who: "init",
                id: self.container.id.clone(),
            });
        }
        self.until_executed(&socket)?;
        run_hooks(
            self.container.hooks.poststart.iter(),
            &self.container,
            "running",
            self.init,
            &self.container.bundle,
        )
        .inspect_err(|_| {
            // As runc does: a container whose poststart hook failed does not go on. It may have ended by itself.
            let _ = process::send_signal(&self.init_pidfd, libc::SIGKILL);
        })
    }

    /// Starts a process beside init.
    ///
    /// # Errors
    /// Why it could not be started: its program missing or not executable, its cwd, …
    pub fn exec(&self, process: &plan::Process, stdio: Stdio) -> Result<Launched, Error> {
        let (socket, process_end) = message::pair().map_err(io("making a process's socket"))?;
        let null = spawn::dev_null().map_err(io("opening /dev/null"))?;
        let streams = streams(&stdio, &null);
        let mut payload =
            serde_json::to_vec(process).map_err(|error| io("writing a process's request")(error.into()))?;
        let mut fds = vec![process_end.as_fd(), streams[0], streams[1], streams[2]];
        let long = if payload.len() < message::MAX_BYTES {
            None
        } else {
            payload.clear();
            Some(wire::memfd(process).map_err(io("writing a process's request"))?)
        };
        fds.extend(long.as_ref().map(AsFd::as_fd));
        if wire::send(&self.control, Tag::Exec, &payload, &fds).is_err() {
            return Err(Error::Ended {
                who: "holder",
                id: self.container.id.clone(),
            });
        }
        drop((process_end, stdio));

        let mut started: Option<Process> = None;
        let mut console = None;
        let error = loop {
            match wire::receive(&socket).map_err(io("hearing from a process"))? {
                Some(Message {
                    tag: Tag::Console, fds, ..
                }) => console = fds.into_iter().next(),
                Some(Message {
                    tag: Tag::Failed,
                    payload,
                    ..
                }) => {
                    break Error::Setup(String::from_utf8_lossy(&payload).into_owned());
                }
                Some(message) if matches!(message.tag, Tag::Forked | Tag::ForkedOutside) => {
                    let outside = message.tag == Tag::ForkedOutside;
                    let process_handle = forked(message)?;
                    let settled = self.settle(process, process_handle.pid(), outside, &socket);
                    started = Some(process_handle);
                    if let Err(error) = settled {
                        break error;
                    }
                }
                Some(message) if message.tag == Tag::Listener => {
                    let taken = match &started {
                        Some(process) => {
                            self.take_listener(&message, Of::Exec, process.pid(), process.pidfd(), &socket)
                        }
                        None => Err(Error::Setup("a listener before its process".to_owned())),
                    };
                    if let Err(error) = taken {
                        break error;
                    }
                }
                // Its end of the socket closed with the execve: the program runs, or somebody killed it.
                None => match started {
                    Some(process) => {
                        return Ok(Launched {
                            process,
                            console,
                            differences: Vec::new(),
                        });
                    }
                    None => {
                        break Error::Ended {
                            who: "holder",
                            id: self.container.id.clone(),
                        };
                    }
                },
                Some(message) => break Error::Setup(format!("unexpected message {:?} during exec", message.tag)),
            }
        };
        if let Some(process) = started {
            // Already ending; a zombie in the PID namespace would hold init's exit back.
            let _ = process.signal(libc::SIGKILL);
            process.wait()?;
        }
        Err(error)
    }

    /// What an exec's process cannot do itself: in a user namespace, or `outside` the container's cgroup. It waits for
    /// that.
    fn settle(&self, plan: &plan::Process, pid: i32, outside: bool, socket: &OwnedFd) -> Result<(), Error> {
        let mapped = self.container.namespaces.user != Namespace::Host;
        if !mapped && !outside {
            return Ok(());
        }
        self.cgroup.place(pid, Some(self.init))?;
        if mapped {
            limit_from_outside(plan, pid)?;
        }
        // One that has failed already says why.
        let _ = wire::send(socket, Tag::Go, &[], &[]);
        Ok(())
    }

    /// The container's cgroups.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Whether it has a PID namespace of its own: then all its processes end with init.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.container.namespaces.pid == Namespace::New
    }

    /// Ends the holder, and with it the container's mounts; init must have ended. May be called again.
    pub fn end_holder(&self) -> Result<(), Error> {
        self.holder.signal(libc::SIGKILL)?;
        self.holder.wait().map(drop)
    }

    /// Pids of children of ours that are not the container's own processes: for whoever reaps orphans.
    pub fn holder_pid(&self) -> i32 {
        self.holder.pid()
    }

    /// After init was reaped: ends the holder, removes cgroups and record, runs poststop hooks. Bounded; done again, it
    /// does no harm. Returns what went wrong with poststop hooks: a warning by the OCI spec, no reason to keep
    /// anything.
    pub fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        let mut deleted = self.deleted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *deleted {
            return Ok(Vec::new());
        }
        // A waiting init, if any, ends with its socket.
        drop(
            self.waiting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
        self.end_holder()?;
        let removed = self.cgroup.delete(CGROUP_DELETE_LIMIT);
        let recorded = self.recorder.as_ref().map_or(Ok(()), Recorder::finish);
        let state = || state_of(&self.container, "stopped", 0);
        let warnings = poststop(&self.container.hooks.poststop, &self.container.bundle, state);
        removed?;
        recorded?;
        Record::remove(&self.container.bundle)?;
        *deleted = true;
        Ok(warnings)
    }

    /// Waits until init's process socket closes with the execve.
    fn until_executed(&self, socket: &OwnedFd) -> Result<(), Error> {
        loop {
            match wire::receive(socket).map_err(io("hearing from init"))? {
                None => return Ok(()),
                Some(message) if message.tag == Tag::Listener => {
                    let taken = self.take_listener(&message, Of::Init, self.init, &self.init_pidfd, socket);
                    taken.inspect_err(|_| {
                        // It waits for an answer that nobody will give; it may have ended by itself.
                        let _ = process::send_signal(&self.init_pidfd, libc::SIGKILL);
                    })?;
                }
                Some(message) if message.tag == Tag::Failed => {
                    return Err(Error::Setup(String::from_utf8_lossy(&message.payload).into_owned()));
                }
                Some(message) => {
                    return Err(Error::Setup(format!(
                        "unexpected message {:?} during start",
                        message.tag
                    )));
                }
            }
        }
    }
}
