//! The holder: a small process of our own binary that makes a container's namespaces and mounts, forks its init, and
//! then every process that is exec'd into it.
//!
//! It stands outside the container's PID namespace and cgroups: nothing in the container sees or signals it, no limit
//! of the container's hits it. Its end is the end of the container's mount namespace, if no process of the container is
//! left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::late::Late;
use super::wire::{self, CONTROL_FD, Message, PROCESS_FD, REQUEST_FD, Request, Tag, View};
use super::{console, domain, init};
use crate::egress;
use crate::error_chain::chain;
use crate::mounts::{self, HierarchyView, Tree};
use crate::plan::{self, Namespace, Namespaces};
use crate::sys::fork::{Fork, fork_sibling};
use crate::sys::{message, namespace, process, release, spawn, user_namespace};

/// Why the holder could not make the container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("{operation}")]
    Io { operation: &'static str, source: io::Error },
    #[error("joining the {kind} namespace {path:?}")]
    Join {
        kind: &'static str,
        path: std::path::PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    UserNamespace(#[from] user_namespace::Error),
    #[error("linux.sysctl: writing {value:?} to {key}")]
    Sysctl {
        key: String,
        value: String,
        source: io::Error,
    },
    #[error("{setting} would be set on the host: {path:?} is the host's own {kind} namespace")]
    HostSetting {
        setting: String,
        kind: &'static str,
        path: std::path::PathBuf,
    },
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    #[error(transparent)]
    Console(#[from] console::Error),
    #[error(transparent)]
    Hook(super::Error),
    #[error(transparent)]
    Egress(#[from] egress::Error),
    #[error("the shim has gone")]
    Alone,
    #[error("the Landlock domain")]
    Domain(#[from] domain::Error),
    #[error("the network namespace {path:?} belongs to the host's user namespace, not to one of the pod's")]
    Owner { path: std::path::PathBuf },
    #[error(transparent)]
    Identity(#[from] super::identity::Error),
    #[error("the process that mounts was killed by signal {signal}")]
    Killed { signal: i32 },
    /// Init, or the process that mounts, failed, and told the shim itself.
    #[error("set-up ended early")]
    Told,
}

/// What a process forked by the holder finds.
#[derive(Debug)]
pub struct Inside {
    /// What the container is.
    pub container: plan::Container,
    /// Files that take "0" to join the container's cgroups.
    pub join: Vec<OwnedFd>,
    /// The container's cgroup in the unified hierarchy, to be forked into.
    pub unified: Option<OwnedFd>,
    /// The host's /proc, opened before any namespace was entered; an instance of its own where the domain has rules for
    /// it.
    pub proc: OwnedFd,
    /// The container's own are made already: init has none to make.
    pub has_procs: bool,
    /// The container's cgroup namespace: given by path at first, then init's own.
    pub cgroup_namespace: Option<OwnedFd>,
}

impl Inside {
    /// The container's root, after the pivot.
    pub fn open_root(&self) -> Result<OwnedFd, init::Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(c"/", flags, Mode::empty()).map_err(|errno| init::Error::Io {
            operation: "opening the container's root",
            source: errno.into(),
        })
    }

    /// Enters the container's cgroup namespace, if it has one that is not the host's.
    pub fn enter_cgroup_namespace(&self) -> Result<(), init::Error> {
        match &self.cgroup_namespace {
            Some(fd) => namespace::enter(fd, libc::CLONE_NEWCGROUP).map_err(|source| init::Error::Io {
                operation: "joining the cgroup namespace",
                source,
            }),
            None => Ok(()),
        }
    }

    /// The cgroup namespace that this process is in.
    pub fn open_own_cgroup_namespace(&self) -> Result<OwnedFd, init::Error> {
        rustix::fs::openat(
            &self.proc,
            c"self/ns/cgroup",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| init::Error::Io {
            operation: "opening /proc/self/ns/cgroup",
            source: errno.into(),
        })
    }
}

/// The holder's program: what `containerd-shim-nucleus-v2 init` runs. Never returns.
pub fn holder_main() -> ! {
    let Ok(control) = process::inherited(CONTROL_FD) else {
        process::exit_now(2)
    };
    match hold(&control) {
        Ok(()) => process::exit_now(0),
        Err(error) => {
            if !matches!(error, Error::Told | Error::Alone) {
                wire::report(&control, &chain(&error));
            }
            process::exit_now(1)
        }
    }
}

fn hold(control: &OwnedFd) -> Result<(), Error> {
    let inside = make(control)?;
    // For the container's life there is little to do, and each fork is the faster for what is not there to be copied.
    release::stack();
    release::program();
    serve(control, &inside)
}

/// Makes the container. Not a part of its caller: its stack is given back.
#[inline(never)]
fn make(control: &OwnedFd) -> Result<Inside, Error> {
    process::set_dumpable(false).map_err(io("hiding the holder's memory"))?;
    // Here once for all that will be forked: what is ignored now would be ignored by every program of the container.
    spawn::reset_signals();
    let socket = process::inherited(PROCESS_FD).map_err(io("taking over init's socket"))?;
    let request = process::inherited(REQUEST_FD).map_err(io("taking over the request"))?;
    let Request { container, process } = wire::from_memfd(request).map_err(io("reading the holder's request"))?;
    let proc = match &container.domain {
        Some(domain) if domain.is_about_contents() => domain::own_proc()?,
        _ => open_proc()?,
    };
    let null = spawn::dev_null().map_err(io("opening /dev/null"))?;

    let mut tree = Tree::open(&container, proc.as_fd())?;
    let map_ids = |user: Option<BorrowedFd<'_>>| tree.map_ids(&container, user, proc.as_fd());
    let cgroup_namespace = enter_namespaces(&container, proc.as_fd(), map_ids)?;
    set_names(&container, proc.as_fd())?;
    tree.attach_root(&container)?;

    let Cgroups {
        join,
        unified,
        hierarchies,
    } = await_cgroups(control)?;
    tree.attach_mounts(&container, &hierarchies)?;
    let terminal = if process.terminal {
        let (master, slave) = console::open(proc.as_fd(), tree.root(), process.console_size)?;
        console::give(&slave, process.uid)?;
        tree.attach_console(proc.as_fd(), &slave)?;
        wire::send(&socket, Tag::Console, &[], &[master.as_fd()]).map_err(|_| Error::Alone)?;
        Some(slave)
    } else {
        None
    };

    let (ours, sibling) = message::pair().map_err(io("making the socket to init"))?;
    let mut inside = Inside {
        container,
        join,
        unified,
        proc,
        has_procs: false,
        cgroup_namespace,
    };
    let root = tree
        .root()
        .try_clone_to_owned()
        .map_err(io("keeping the container's root"))?;
    let late = Late::fork(
        tree,
        &inside.container,
        &process,
        &hierarchies,
        control,
        inside.proc.as_fd(),
    )?;
    if inside.container.namespaces.pid == Namespace::New {
        namespace::unshare(libc::CLONE_NEWPID).map_err(io("unsharing the PID namespace"))?;
    }
    let mut procs = Vec::new();
    if let Some(domain) = &inside.container.domain {
        if domain.is_about_contents()
            && let Some(made) = domain::make_procs(&inside.container)?
        {
            procs = made;
            inside.has_procs = true;
        }
        let around = domain::Surroundings {
            root: root.as_fd(),
            procs: &procs,
            own_proc: inside.proc.as_fd(),
        };
        domain::enter(domain, &inside.container, &around)?;
    }
    drop(root);
    let (pid, pidfd) = match fork_sibling(inside.unified.as_ref()).map_err(io("forking init"))? {
        Fork::Child => {
            drop(ours);
            init::run_init(&inside, &process, sibling, socket, terminal)
        }
        Fork::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop((sibling, socket, terminal));
    // The container's streams are init's alone from here on.
    process::set_streams([null.as_fd(); 3]).map_err(io("letting go of init's streams"))?;
    drop(null);
    wire::send(control, Tag::Forked, pid.to_string().as_bytes(), &[pidfd.as_fd()]).map_err(|_| Error::Alone)?;
    drop(pidfd);

    let instances = match wire::receive(&ours).map_err(io("hearing from init"))? {
        Some(Message {
            tag: Tag::Instances,
            fds,
            ..
        }) => fds,
        _ => return Err(Error::Told),
    };
    let mut instances = instances.into_iter();
    inside.cgroup_namespace = instances
        .next()
        .filter(|_| inside.container.namespaces.cgroup != Namespace::Host);
    let procs: Vec<_> = match inside.has_procs {
        true => procs.into_iter().map(|(_, fd)| fd).collect(),
        false => instances.collect(),
    };
    late.finish(pid, &procs.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    drop(procs);
    // The root moved along; the working directory is still the shim's, of the host.
    rustix::process::chdir(c"/").map_err(|errno| io("leaving the host's working directory")(errno.into()))?;
    wire::send(&ours, Tag::Go, &[], &[]).map_err(|_| Error::Told)?;
    drop((ours, process, hierarchies));
    inside.container.mounts = Vec::new();
    Ok(inside)
}

fn open_proc() -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(|errno| io("opening /proc")(errno.into()))
}

/// Forks what the shim asks for, until the shim is gone.
fn serve(control: &OwnedFd, inside: &Inside) -> Result<(), Error> {
    loop {
        // First this: what a message is received into would be kept all the while.
        message::wait(control).map_err(io("waiting for the shim"))?;
        match wire::receive(control).map_err(io("hearing from the shim"))? {
            Some(message) if message.tag == Tag::Exec => exec(inside, message),
            // The shim's end is ours: the container, if it lives, is for `delete` to clean up.
            _ => return Ok(()),
        }
    }
}

fn exec(inside: &Inside, message: Message) {
    let mut fds = message.fds.into_iter();
    let (Some(socket), Some(stdin), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return;
    };
    let (forked, tag) = match fork_sibling(inside.unified.as_ref()) {
        // The container hands controllers on to cgroups that it made: its own takes no process any more (cgroups(7),
        // "no internal processes").
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => (fork_sibling(None), Tag::ForkedOutside),
        forked => (forked, Tag::Forked),
    };
    match forked {
        Ok(Fork::Child) => {
            let streams = process::set_streams([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
            drop((stdin, stdout, stderr));
            let plan: io::Result<plan::Process> = match fds.next() {
                Some(memfd) => wire::from_memfd(memfd),
                None => serde_json::from_slice(&message.payload).map_err(io::Error::from),
            };
            match streams.and(plan) {
                Ok(plan) => init::run_exec(inside, &plan, socket, tag == Tag::ForkedOutside),
                Err(error) => {
                    wire::report(&socket, &format!("reading an exec's request: {error}"));
                    process::exit_now(1)
                }
            }
        }
        Ok(Fork::Parent(pid, pidfd)) => {
            // Who asked may have heard from the process already that it could not be executed, and have gone. That the
            // shim itself is gone shows where the next request would.
            let _ = wire::send(&socket, tag, pid.to_string().as_bytes(), &[pidfd.as_fd()]);
        }
        // pid_namespaces(7): a namespace whose init has ended takes no more processes.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            wire::report(&socket, "forking a process: the container's init has ended");
        }
        Err(error) => wire::report(&socket, &format!("forking a process: {error}")),
    }
}

/// Joins the namespaces that have a path, then makes the new ones. Returns the cgroup namespace to be joined, which is
/// init's to enter, since the holder stays out of the container's cgroups. `map_ids` is called with the user namespace
/// before that is entered.
pub(super) fn enter_namespaces(
    container: &plan::Container,
    proc: BorrowedFd<'_>,
    map_ids: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<(), mounts::Error>,
) -> Result<Option<OwnedFd>, Error> {
    let namespaces = &container.namespaces;
    refuse_settings_of_the_host(container, proc)?;
    let joined = |namespace: &Namespace, kind: &'static str| match namespace {
        Namespace::Path(path) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(|fd| Some((fd, path.clone())))
            .map_err(|errno| Error::Join {
                kind,
                path: path.clone(),
                source: errno.into(),
            }),
        _ => Ok(None),
    };
    let user = joined(&namespaces.user, "user")?;
    let cgroup = joined(&namespaces.cgroup, "cgroup")?;
    // The host's root has every right in each of them, whoever owns it; a user namespace, once entered, takes most of
    // these rights away: so it comes last of those that are joined, and before those that it shall own.
    for (namespace, kind, flag) in [
        (&namespaces.net, "network", libc::CLONE_NEWNET),
        (&namespaces.ipc, "IPC", libc::CLONE_NEWIPC),
        (&namespaces.uts, "UTS", libc::CLONE_NEWUTS),
        (&namespaces.pid, "PID", libc::CLONE_NEWPID),
        (&namespaces.time, "time", libc::CLONE_NEWTIME),
        (&namespaces.mount, "mount", libc::CLONE_NEWNS),
    ] {
        if let Some((fd, path)) = joined(namespace, kind)? {
            namespace::enter(fd, flag).map_err(|source| Error::Join { kind, path, source })?;
        }
    }
    if namespaces.time == Namespace::New {
        new_time_namespace(namespaces, proc)?;
    }
    let user = match user {
        Some((fd, path)) => Some((fd, path)),
        None if namespaces.user == Namespace::New => Some((
            user_namespace::new(&namespaces.uid_map, &namespaces.gid_map, proc)?,
            "/proc/self/ns/user".into(),
        )),
        None => None,
    };
    map_ids(user.as_ref().map(|(fd, _)| fd.as_fd()))?;
    if let Some((fd, path)) = user {
        namespace::enter(fd, libc::CLONE_NEWUSER).map_err(|source| Error::Join {
            kind: "user",
            path,
            source,
        })?;
        process::set_ids(0, 0, Some(&[])).map_err(io("becoming root of the user namespace"))?;
        process::set_dumpable(false).map_err(io("hiding the holder's memory"))?;
    }
    // Always a mount namespace of our own: of one that is joined a copy, since a switched root is everybody's in it.
    let new: libc::c_int = [
        (&namespaces.net, libc::CLONE_NEWNET),
        (&namespaces.ipc, libc::CLONE_NEWIPC),
        (&namespaces.uts, libc::CLONE_NEWUTS),
    ]
    .into_iter()
    .filter(|(namespace, _)| **namespace == Namespace::New)
    .fold(libc::CLONE_NEWNS, |flags, (_, flag)| flags | flag);
    namespace::unshare(new).map_err(io("unsharing the container's namespaces"))?;
    if namespaces.net == Namespace::New {
        namespace::loopback_up().map_err(io("bringing the loopback interface up"))?;
        if let Some(allowed) = &container.egress {
            egress::enforce_here(allowed)?;
        }
    }
    Ok(cgroup.map(|(fd, _)| fd))
}

/// A time namespace counts for the next child; its offsets are set before that (time_namespaces(7)).
fn new_time_namespace(namespaces: &Namespaces, proc: BorrowedFd<'_>) -> Result<(), Error> {
    namespace::unshare(libc::CLONE_NEWTIME).map_err(io("unsharing the time namespace"))?;
    let lines: String = namespaces
        .time_offsets
        .iter()
        .map(|(clock, seconds, nanoseconds)| format!("{clock} {seconds} {nanoseconds}\n"))
        .collect();
    if !lines.is_empty() {
        write_proc(proc, "self/timens_offsets", lines.as_bytes()).map_err(io("writing /proc/self/timens_offsets"))?;
    }
    Ok(())
}

fn write_proc(proc: BorrowedFd<'_>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

/// A namespace that is joined by path may be the host's own: its names and sysctls are not the container's to set.
fn refuse_settings_of_the_host(container: &plan::Container, proc: BorrowedFd<'_>) -> Result<(), Error> {
    let sysctl = |prefixes: &[&str]| {
        let mut keys = container.sysctls.iter().map(|(key, _)| key);
        keys.find(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)))
            .map(|key| format!("linux.sysctl {}", key.replace('/', ".")))
    };
    let name = || {
        let named = [(&container.hostname, "hostname"), (&container.domainname, "domainname")];
        named
            .into_iter()
            .find_map(|(value, field)| value.is_some().then(|| field.to_owned()))
    };
    let namespaces = &container.namespaces;
    for (namespace, file, kind, setting) in [
        (&namespaces.net, c"self/ns/net", "network", sysctl(&["net/"])),
        (
            &namespaces.ipc,
            c"self/ns/ipc",
            "IPC",
            sysctl(&["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"]),
        ),
        (
            &namespaces.uts,
            c"self/ns/uts",
            "UTS",
            name().or_else(|| sysctl(&["kernel/domainname"])),
        ),
    ] {
        let (Namespace::Path(path), Some(setting)) = (namespace, setting) else {
            continue;
        };
        let failed = |errno: rustix::io::Errno| Error::Join {
            kind,
            path: path.clone(),
            source: errno.into(),
        };
        let theirs = rustix::fs::stat(path).map_err(failed)?;
        let ours = rustix::fs::statat(proc, file, AtFlags::empty()).map_err(failed)?;
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
            return Err(Error::HostSetting {
                setting,
                kind,
                path: path.clone(),
            });
        }
    }
    Ok(())
}

/// Hostname, domainname and sysctls, all of namespaces that are the container's.
pub(super) fn set_names(container: &plan::Container, proc: BorrowedFd<'_>) -> Result<(), Error> {
    if let Some(name) = &container.hostname {
        namespace::set_hostname(name).map_err(io("setting the hostname"))?;
    }
    if let Some(name) = &container.domainname {
        namespace::set_domainname(name).map_err(io("setting the domainname"))?;
    }
    for (key, value) in &container.sysctls {
        write_proc(proc, &format!("sys/{key}"), value.as_bytes()).map_err(|source| Error::Sysctl {
            key: key.clone(),
            value: value.clone(),
            source,
        })?;
    }
    Ok(())
}

/// What the shim says of the container's cgroups.
struct Cgroups {
    join: Vec<OwnedFd>,
    unified: Option<OwnedFd>,
    hierarchies: Vec<HierarchyView>,
}

fn await_cgroups(control: &OwnedFd) -> Result<Cgroups, Error> {
    match wire::receive(control).map_err(io("waiting for the cgroups"))? {
        Some(Message {
            tag: Tag::Cgroups,
            payload,
            mut fds,
        }) => {
            let view: View =
                serde_json::from_slice(&payload).map_err(|error| io("reading the cgroups' names")(error.into()))?;
            let unified = if view.unified { fds.pop() } else { None };
            Ok(Cgroups {
                join: fds,
                unified,
                hierarchies: view.hierarchies,
            })
        }
        _ => Err(Error::Alone),
    }
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
