//! The shim's side of a container's life: create, start, exec, delete.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::wire::{self, Message, Tag, View};
use super::{Error, Executable, Launched, Owner, Process, Stdio};
use crate::cgroup::Cgroup;
use crate::hooks;
use crate::mounts::HierarchyView;
use crate::plan::{self, Namespace, Plan};
use crate::record::{self, ProcessId, Record};
use crate::sys::{message, process, spawn};

/// How long delete waits for processes to leave the cgroups.
const CGROUP_DELETE_LIMIT: Duration = Duration::from_secs(5);

/// A created container. Dropping it without [`Container::delete`] leaves clean-up to [`super::clean`].
#[derive(Debug)]
pub struct Container {
    container: plan::Container,
    cgroup: Cgroup,
    holder: Process,
    control: OwnedFd,
    /// Init's process socket: taken by start.
    waiting: Mutex<Option<OwnedFd>>,
    init: i32,
    init_pidfd: OwnedFd,
    deleted: AtomicBool,
}

/// Creates the container: when this returns, init waits before the execve of its program. On error nothing is left.
///
/// # Errors
/// Whatever stands in the way, by its own text; the container's program missing or not executable among them.
pub fn create(exe: &Executable, plan: &Plan, owner: &Owner, stdio: Stdio) -> Result<(Container, Launched), Error> {
    let mut record = Record {
        version: record::VERSION,
        id: plan.id.clone(),
        group: owner.group.clone(),
        shim: ProcessId::of(std::process::id() as i32).ok_or_else(|| Error::Io {
            operation: "reading our own start time",
            source: std::io::Error::from_raw_os_error(libc::ESRCH),
        })?,
        socket: owner.socket.clone(),
        init: None,
        cgroup: Some(plan.cgroup.clone()),
        poststop: plan.container.hooks.poststop.clone(),
        annotations: match plan.container.hooks.poststop.as_slice() {
            [] => Vec::new(),
            _ => plan.container.annotations.clone(),
        },
    };
    // What the record names is killed by `clean`: it must not be another container's.
    Cgroup::open(&plan.cgroup)?.check_free()?;
    record.write(&plan.bundle)?;
    create_recorded(exe, plan, &mut record, stdio).inspect_err(|_| {
        // The error that is on its way says more than a second one would; what stays is `clean`'s, by the record.
        let _ = poststop(&plan.container.hooks.poststop, &plan.bundle, || {
            state_of(&plan.container, "stopped", 0)
        });
        let _ = Record::remove(&plan.bundle);
    })
}

fn create_recorded(
    exe: &Executable,
    plan: &Plan,
    record: &mut Record,
    stdio: Stdio,
) -> Result<(Container, Launched), Error> {
    let (control, holder_end) = message::pair().map_err(io("making the holder's socket"))?;
    let (socket, process_end) = message::pair().map_err(io("making init's socket"))?;
    let request = wire::Request {
        container: plan.container.clone(),
        process: plan.process.clone(),
    };
    let request = wire::memfd(&request).map_err(io("writing the holder's request"))?;
    let null = spawn::dev_null().map_err(io("opening /dev/null"))?;
    let streams = streams(&stdio, &null);
    let fds = [
        streams[0],
        streams[1],
        streams[2],
        holder_end.as_fd(),
        process_end.as_fd(),
        request.as_fd(),
    ];
    let id = CString::new(plan.id.as_str()).map_err(|error| io("naming the holder")(error.into()))?;
    let argv = [c"containerd-shim-nucleus-v2", c"init", c"-id", id.as_c_str()];
    let (pid, pidfd) = spawn::spawn(exe.0.as_fd(), &argv, &fds).map_err(io("starting the holder"))?;
    let holder = Process::new(pid, pidfd);
    drop((holder_end, process_end, request, stdio));

    let mut attempt = Attempt {
        plan,
        record,
        holder,
        init: None,
        cgroup: None,
        control,
        socket,
    };
    match attempt.run() {
        Ok(console) => {
            let Attempt {
                holder,
                init,
                cgroup,
                control,
                socket,
                ..
            } = attempt;
            let (Some(init), Some(cgroup)) = (init, cgroup) else {
                return Err(Error::Ended {
                    who: "holder",
                    id: plan.id.clone(),
                });
            };
            let init_pidfd = init.pidfd.try_clone().map_err(io("duplicating init's pidfd"))?;
            let container = Container {
                container: plan.container.clone(),
                cgroup,
                holder,
                control,
                waiting: Mutex::new(Some(socket)),
                init: init.pid(),
                init_pidfd,
                deleted: AtomicBool::new(false),
            };
            Ok((container, Launched { process: init, console }))
        }
        Err(error) => {
            attempt.undo();
            Err(error)
        }
    }
}

/// A create under way: what there is to undo.
struct Attempt<'a> {
    plan: &'a Plan,
    record: &'a mut Record,
    holder: Process,
    init: Option<Process>,
    cgroup: Option<Cgroup>,
    control: OwnedFd,
    socket: OwnedFd,
}

impl Attempt<'_> {
    /// Until init is ready; the master of its pseudo terminal.
    fn run(&mut self) -> Result<Option<OwnedFd>, Error> {
        // The holder is at its namespaces and rootfs meanwhile.
        let cgroup = self
            .cgroup
            .insert(Cgroup::create(&self.plan.cgroup, resources(self.plan))?);
        let join = cgroup.join_files()?;
        let unified = match self.plan.container.namespaces.user {
            Namespace::Host => cgroup.clone_into()?,
            // The holder has no right to that cgroup any more: see `from_outside`.
            _ => None,
        };
        let view = View {
            hierarchies: views(cgroup),
            unified: unified.is_some(),
        };
        let payload = serde_json::to_vec(&view).map_err(|error| io("naming the cgroups")(error.into()))?;
        let join: Vec<BorrowedFd<'_>> = join.iter().chain(&unified).map(AsFd::as_fd).collect();
        // A holder that has failed already says why on the same socket: that is the error to be told.
        let _ = wire::send(&self.control, Tag::Cgroups, &payload, &join);

        let mut console = None;
        loop {
            let message = self.next()?;
            match message.tag {
                Tag::Forked => {
                    let init = forked(message)?;
                    if self.plan.container.namespaces.user != Namespace::Host {
                        from_outside(&self.plan.process, init.pid(), self.cgroup.as_ref())?;
                    }
                    self.record.init = ProcessId::of(init.pid());
                    self.init = Some(init);
                    self.record.write(&self.plan.bundle)?;
                }
                Tag::Hooks => {
                    self.runtime_hooks()?;
                    wire::send(&self.control, Tag::Go, &[], &[]).map_err(io("answering the holder"))?;
                }
                Tag::Console => console = message.fds.into_iter().next(),
                Tag::Ready => return Ok(console),
                Tag::Failed => return Err(Error::Setup(String::from_utf8_lossy(&message.payload).into_owned())),
                _ => {
                    return Err(Error::Setup(format!(
                        "unexpected message {:?} during create",
                        message.tag
                    )));
                }
            }
        }
    }

    /// The next message of holder or init. Where one fails, the other ends without a word: so the end of one is no answer
    /// until the other has ended too.
    fn next(&self) -> Result<Message, Error> {
        let mut open = vec![&self.control, &self.socket];
        while !open.is_empty() {
            let mut fds: Vec<_> = open.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io("waiting for the holder")(error.into())),
            }
            let Some(ready) = fds.iter().position(|fd| !fd.revents().is_empty()) else {
                continue;
            };
            match wire::receive(open[ready]).map_err(io("hearing from the holder"))? {
                Some(message) => return Ok(message),
                None => drop(open.remove(ready)),
            }
        }
        Err(Error::Ended {
            who: "holder",
            id: self.plan.id.clone(),
        })
    }

    fn runtime_hooks(&self) -> Result<(), Error> {
        let hooks = &self.plan.container.hooks;
        let pid = self.init.as_ref().map_or(0, Process::pid);
        run_hooks(
            hooks.prestart.iter().chain(&hooks.create_runtime),
            &self.plan.container,
            "creating",
            pid,
            &self.plan.bundle,
        )
    }

    /// Best effort by nature: the caller's error is the one to be told, and the record stays valid for `clean`.
    fn undo(&mut self) {
        for process in [Some(&self.holder), self.init.as_ref()].into_iter().flatten() {
            let _ = process.signal(libc::SIGKILL);
        }
        for process in [Some(&self.holder), self.init.as_ref()].into_iter().flatten() {
            let _ = process.wait();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.delete(CGROUP_DELETE_LIMIT);
        }
    }
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
        until_executed(&socket)?;
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
                Some(message) if message.tag == Tag::Forked => {
                    let process_handle = forked(message)?;
                    if self.container.namespaces.user != Namespace::Host {
                        if let Err(error) = from_outside(process, process_handle.pid(), Some(&self.cgroup)) {
                            started = Some(process_handle);
                            break error;
                        }
                        // One that has failed already says why.
                        let _ = wire::send(&socket, Tag::Go, &[], &[]);
                    }
                    started = Some(process_handle);
                }
                // Its end of the socket closed with the execve: the program runs, or somebody killed it.
                None => match started {
                    Some(process) => return Ok(Launched { process, console }),
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
    /// does no harm. Returns what went wrong with poststop hooks: a warning by the OCI spec, no reason to keep anything.
    pub fn delete(&self) -> Result<Vec<hooks::Error>, Error> {
        if self.deleted.swap(true, Ordering::AcqRel) {
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
        let state = || state_of(&self.container, "stopped", 0);
        let warnings = poststop(&self.container.hooks.poststop, &self.container.bundle, state);
        removed?;
        Record::remove(&self.container.bundle)?;
        Ok(warnings)
    }
}

/// Runs every poststop hook, whatever the others did; returns the failures.
pub(super) fn poststop(hooks: &[plan::Hook], bundle: &Path, state: impl FnOnce() -> Vec<u8>) -> Vec<hooks::Error> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let state = state();
    hooks
        .iter()
        .filter_map(|hook| hooks::run(hook, &state, bundle).err())
        .collect()
}

fn state_of(container: &plan::Container, status: &str, pid: i32) -> Vec<u8> {
    hooks::State {
        id: &container.id,
        status,
        pid,
        bundle: &container.bundle,
        annotations: &container.annotations,
    }
    .to_json()
}

/// Runs `hooks` one after the other, in `cwd`, with the container's state on their stdin; the first failure ends it.
pub(super) fn run_hooks<'a>(
    hooks: impl Iterator<Item = &'a plan::Hook>,
    container: &plan::Container,
    status: &str,
    pid: i32,
    cwd: &Path,
) -> Result<(), Error> {
    let mut state = None;
    for hook in hooks {
        let state = state.get_or_insert_with(|| state_of(container, status, pid));
        hooks::run(hook, state, cwd)?;
    }
    Ok(())
}

/// Waits until the process socket closes with the execve.
fn until_executed(socket: &OwnedFd) -> Result<(), Error> {
    match wire::receive(socket).map_err(io("hearing from init"))? {
        None => Ok(()),
        Some(message) if message.tag == Tag::Failed => {
            Err(Error::Setup(String::from_utf8_lossy(&message.payload).into_owned()))
        }
        Some(message) => Err(Error::Setup(format!(
            "unexpected message {:?} during start",
            message.tag
        ))),
    }
}

fn forked(message: Message) -> Result<Process, Error> {
    let pid = std::str::from_utf8(&message.payload)
        .ok()
        .and_then(|text| text.parse().ok());
    match (pid, message.fds.into_iter().next()) {
        (Some(pid), Some(pidfd)) => Ok(Process::new(pid, pidfd)),
        _ => Err(Error::Setup(
            "the holder told of a process without its pid and pidfd".to_owned(),
        )),
    }
}

/// What only a process of the host's user namespace may do for one in another: hard limits, a lower OOM score, a place in
/// the unified hierarchy of a hybrid host. The last is slow after a quiet moment (the kernel waits for a grace period).
fn from_outside(limits: &plan::Process, pid: i32, cgroup: Option<&Cgroup>) -> Result<(), Error> {
    if let Some(directory) = cgroup.map(Cgroup::clone_into).transpose()?.flatten() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&directory, c"cgroup.procs", flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, pid.to_string().as_bytes()))
            .map_err(|errno| io("joining the unified cgroup")(errno.into()))?;
    }
    for limit in &limits.rlimits {
        process::set_rlimit(pid, limit).map_err(io("setting process.rlimits"))?;
    }
    if let Some(score) = limits.oom_score_adj {
        let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
        std::fs::write(path, score.to_string()).map_err(io("setting process.oomScoreAdj"))?;
    }
    Ok(())
}

/// The hierarchies as a container may see them: the unified one is not among what v1 shows.
fn views(cgroup: &Cgroup) -> Vec<HierarchyView> {
    cgroup
        .places()
        .into_iter()
        .filter_map(|place| {
            let name = place.mount_point.file_name()?.to_string_lossy().into_owned();
            (!place.controllers.is_empty()).then_some(HierarchyView {
                name,
                directory: place.directory,
            })
        })
        .collect()
}

fn streams<'a>(stdio: &'a Stdio, null: &'a OwnedFd) -> [BorrowedFd<'a>; 3] {
    [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|stream| stream.as_ref().unwrap_or(null).as_fd())
}

fn resources(plan: &Plan) -> Option<&oci_spec::runtime::LinuxResources> {
    plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
}

fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
