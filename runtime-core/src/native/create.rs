//! Create: from a Plan to an init that waits before its execve.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};

use super::child::{forked, limit_from_outside, streams};
use super::container::{CGROUP_DELETE_LIMIT, Container};
use super::lifecycle_hooks::{poststop, run_hooks, state_of};
use super::member::Member;
use super::recorder::Recorder;
use super::wire::{self, Message, Tag, View};
use super::{Error, Executable, Launched, Owner, Process, Stdio, io};
use crate::cgroup::{self, Cgroup};
use crate::mounts::HierarchyView;
use crate::plan::{self, Listener, MOUNT_ATTR_RDONLY, MountSource, Namespace, Plan};
use crate::record::{ProcessId, Record};
use crate::sys::{message, spawn};

/// Creates the container: when this returns, init waits before the execve of its program. On error nothing is left.
///
/// # Errors
/// Whatever stands in the way, by its own text; the container's program missing or not executable among them.
pub fn create(exe: &Executable, plan: &Plan, owner: &Owner, stdio: Stdio) -> Result<(Container, Launched), Error> {
    let mut record = owner.record_of(plan).map_err(io("reading our own start time"))?;
    let recorder = match &plan.process.listener {
        Some(Listener::Recorder { directory }) => {
            Some(Recorder::open(directory, &format!("{}-{}", owner.namespace, plan.id))?)
        }
        _ => None,
    };
    // What the record names is killed by `clean`: it must not be another container's.
    Cgroup::open(&plan.cgroup)?.check_free()?;
    record.write(&plan.bundle)?;
    create_recorded(exe, plan, &mut record, recorder, stdio).inspect_err(|_| {
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
    recorder: Option<Recorder>,
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
        member: None,
        cgroup: None,
        exe,
        control,
        socket,
        differences: Vec::new(),
    };
    match attempt.run() {
        Ok(console) => {
            let Attempt {
                holder,
                init,
                cgroup,
                control,
                socket,
                differences,
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
                listener: plan.process.listener.clone(),
                recorder,
                deleted: Mutex::new(false),
            };
            let launched = Launched {
                process: init,
                console,
                differences,
            };
            Ok((container, launched))
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
    /// Who holds the place in a scope of systemd's until init is there.
    member: Option<Member>,
    cgroup: Option<Cgroup>,
    exe: &'a Executable,
    control: OwnedFd,
    socket: OwnedFd,
    /// What of its mounts is not as it was meant.
    differences: Vec<String>,
}

impl Attempt<'_> {
    /// Until init is ready; the master of its pseudo terminal.
    fn run(&mut self) -> Result<Option<OwnedFd>, Error> {
        // The holder is at its namespaces and rootfs meanwhile.
        if Cgroup::open(&self.plan.cgroup)?.needs_member() {
            self.member = Some(Member::spawn(self.exe, &self.plan.id)?);
        }
        let description = format!("nucleus container {}", self.plan.id);
        let request = cgroup::Request {
            resources: resources(self.plan),
            member: self.member.as_ref().map(Member::pid),
            description: &description,
            delegate_to: delegate_to(&self.plan.container),
        };
        let cgroup = self.cgroup.insert(Cgroup::create(&self.plan.cgroup, request)?);
        let join = cgroup.join_files()?;
        let unified = match self.plan.container.namespaces.user {
            Namespace::Host => cgroup.clone_into()?,
            // The holder has no right to that cgroup any more: see `Cgroup::place`.
            _ => None,
        };
        let view = View {
            hierarchies: views(cgroup, &self.plan.container),
            unified: unified.is_some(),
        };
        let payload = serde_json::to_vec(&view).map_err(|error| io("naming the cgroups")(error.into()))?;
        let join: Vec<BorrowedFd<'_>> = join.iter().chain(&unified).map(AsFd::as_fd).collect();
        match wire::send(&self.control, Tag::Cgroups, &payload, &join) {
            // A holder that has failed already says why on the same socket: that is the error to be told.
            Err(source) if source.raw_os_error() == Some(libc::E2BIG) => {
                return Err(io(
                    "telling the holder of its cgroups (is linux.cgroupsPath very long?)",
                )(source));
            }
            _ => {}
        }

        let mut console = None;
        loop {
            let message = self.next()?;
            match message.tag {
                Tag::Forked => {
                    let init = forked(message)?;
                    if self.plan.container.namespaces.user != Namespace::Host {
                        if let Some(cgroup) = &self.cgroup {
                            cgroup.place(init.pid(), None)?;
                        }
                        limit_from_outside(&self.plan.process, init.pid())?;
                        // It waits for that before it makes its cgroup namespace. One that has failed says why itself.
                        let _ = wire::send(&self.socket, Tag::Go, &[], &[]);
                    }
                    self.record.init = ProcessId::of(init.pid());
                    self.init = Some(init);
                    self.record.write(&self.plan.bundle)?;
                }
                Tag::Hooks => {
                    self.runtime_hooks()?;
                    wire::send(&self.control, Tag::Go, &[], &[]).map_err(io("answering the holder"))?;
                }
                Tag::Differences => {
                    let text = String::from_utf8_lossy(&message.payload);
                    self.differences.extend(text.lines().map(str::to_owned));
                }
                Tag::Console => console = message.fds.into_iter().next(),
                Tag::Ready => {
                    if let Some(member) = self.member.take() {
                        member.end()?;
                    }
                    return Ok(console);
                }
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

    /// The next message of holder or init. Where one fails, the other ends without a word: so the end of one is no
    /// answer until the other has ended too.
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
        if let Some(member) = self.member.take() {
            let _ = member.end();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.delete(CGROUP_DELETE_LIMIT);
        }
    }
}

/// The hierarchies as a container may see them: beside those of v1 the unified one is not shown.
fn views(cgroup: &Cgroup, container: &plan::Container) -> Vec<HierarchyView> {
    let places = cgroup.places();
    let is_v2 = places.iter().all(|place| place.controllers.is_empty());
    places
        .into_iter()
        .filter_map(|place| {
            if is_v2 {
                // Who sees the host's names of cgroups sees the host's tree, as under runc. In a user namespace only
                // what is its own.
                let namespaces = &container.namespaces;
                let whole = namespaces.cgroup == Namespace::Host && namespaces.user == Namespace::Host;
                return Some(HierarchyView {
                    name: String::new(),
                    directory: if whole { place.mount_point } else { place.directory },
                });
            }
            let name = place.mount_point.file_name()?.to_string_lossy().into_owned();
            (!place.controllers.is_empty()).then_some(HierarchyView {
                name,
                directory: place.directory,
            })
        })
        .collect()
}

/// Root of the container's user namespace, where the container may make cgroups of its own: it has a user and a cgroup
/// namespace of its own, and may write to its cgroup mount (runtime-spec, "Cgroup ownership").
fn delegate_to(container: &plan::Container) -> Option<(u32, u32)> {
    let namespaces = &container.namespaces;
    let writable = |mount: &plan::Mount| mount.source == MountSource::Cgroup && mount.set & MOUNT_ATTR_RDONLY == 0;
    if namespaces.user != Namespace::New
        || namespaces.cgroup != Namespace::New
        || !container.mounts.iter().any(writable)
    {
        return None;
    }
    let root = |map: &[plan::IdMap]| {
        let entry = map.iter().find(|entry| entry.container == 0)?;
        Some(entry.host)
    };
    Some((root(&namespaces.uid_map)?, root(&namespaces.gid_map)?))
}

fn resources(plan: &Plan) -> Option<&oci_spec::runtime::LinuxResources> {
    plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
}
