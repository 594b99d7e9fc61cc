//! The process of a pod whose sandbox is the shim's own: it is in the pod's namespaces, so that containers find these
//! by its pid, and is the first of the pod's PID namespace, where it reaps. It does what a pause container does, and is
//! none: no image, no cgroup of its own, no program but ours.
//!
//! Its root is the memory that the pod's containers share, and the only mount that it has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::holder::{Error, enter_namespaces, set_names};
use super::identity;
use super::wire::{self, CONTROL_FD, Tag};
use crate::error_chain::chain;
use crate::mounts;
use crate::plan::{self, Mount, MountSource, Namespace, Sandbox};
use crate::sys::fork::{Fork, fork_sibling};
use crate::sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MountAttr, set_attributes};
use crate::sys::{message, namespace, process, release, signal, spawn};

/// The word on the command line that makes this process of our program; see [`pause_main`].
pub const ACTION: &str = "pause";

/// A memfd with the [`Sandbox`] as JSON, beside the control socket.
const SANDBOX_FD: i32 = CONTROL_FD + 1;

/// Bytes of shared memory: containerd's default.
const MEMORY: u64 = 64 << 20;

/// Whom it runs as, as pause images do, where the pod's user namespace knows them.
const USER: u32 = 65535;

/// What `containerd-shim-nucleus-v2 pause` runs. Never returns.
pub fn pause_main() -> ! {
    let Ok(control) = process::inherited(CONTROL_FD) else {
        process::exit_now(2)
    };
    let error = match become_pod(&control) {
        Ok(Stage::Made) => process::exit_now(0),
        Ok(Stage::Pod(sandbox)) => match stay(&sandbox, &control) {
            Ok(()) => process::exit_now(0),
            Err(error) => error,
        },
        Err(error) => error,
    };
    wire::report(&control, &chain(&error));
    process::exit_now(1)
}

enum Stage {
    /// This process made the pod's first one, which is another.
    Made,
    /// This process is the pod's.
    Pod(Box<Sandbox>),
}

fn become_pod(control: &OwnedFd) -> Result<Stage, Error> {
    process::set_dumpable(false).map_err(io("hiding the sandbox's memory"))?;
    spawn::reset_signals();
    let request = process::inherited(SANDBOX_FD).map_err(io("taking over the request"))?;
    let mut sandbox: Box<Sandbox> = wire::from_memfd(request).map_err(io("reading the sandbox's request"))?;
    let proc = open_directory("/proc").map_err(io("opening /proc"))?;
    let memory = mounts::open_filesystem(&memory(sandbox.root))?;
    // By its fd: the namespace has no other name.
    let user = if sandbox.user_of_network {
        let user = owner_of_network(&sandbox.container, proc.as_fd())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", user.as_raw_fd()));
        sandbox.container.namespaces.user = Namespace::Path(path);
        Some(user)
    } else {
        None
    };
    enter_namespaces(&sandbox.container, proc.as_fd(), |_| Ok(()))?;
    drop(user);
    set_names(&sandbox.container, proc.as_fd())?;
    enter_memory(&memory).map_err(io("making the pod's shared memory the root"))?;
    drop((memory, proc));
    if sandbox.container.namespaces.pid == Namespace::Host {
        return Ok(Stage::Pod(sandbox));
    }
    namespace::unshare(libc::CLONE_NEWPID).map_err(io("unsharing the PID namespace"))?;
    match fork_sibling(None).map_err(io("forking the pod's first process"))? {
        Fork::Child => Ok(Stage::Pod(sandbox)),
        Fork::Parent(pid, pidfd) => {
            wire::send(control, Tag::Forked, pid.to_string().as_bytes(), &[pidfd.as_fd()]).map_err(|_| Error::Alone)?;
            Ok(Stage::Made)
        }
    }
}

/// Until the shim is gone.
fn stay(sandbox: &Sandbox, control: &OwnedFd) -> Result<(), Error> {
    signal::leave_children_to_kernel().map_err(io("leaving orphans to the kernel"))?;
    // The one that made the namespaces leads its session; a signal to that group is not for the pod.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(io("becoming a session leader")(errno.into())),
    }
    let maps = |map: &[plan::IdMap]| {
        map.iter()
            .any(|line| (line.container..line.container + line.size).contains(&USER))
    };
    let namespaces = &sandbox.container.namespaces;
    let is_known = namespaces.uid_map.is_empty() || (maps(&namespaces.uid_map) && maps(&namespaces.gid_map));
    let id = if is_known { USER } else { 0 };
    identity::assume(&plan::Process {
        uid: id,
        gid: id,
        // It executes nothing and asks for nothing: it needs no right.
        capabilities: Some(plan::Capabilities::default()),
        no_new_privileges: true,
        ..plan::Process::default()
    })?;
    process::set_dumpable(false).map_err(io("hiding the sandbox's memory"))?;
    wire::send(control, Tag::Ready, &[], &[]).map_err(|_| Error::Alone)?;
    release::stack();
    release::program();
    // Whatever the shim might say, it means the end.
    let _ = message::wait(control);
    Ok(())
}

fn memory(root: (u32, u32)) -> Mount {
    Mount {
        destination: "the pod's shared memory".into(),
        source: MountSource::New {
            kind: "tmpfs".into(),
            source: "shm".into(),
        },
        set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        data: vec![
            "mode=1777".into(),
            format!("size={MEMORY}"),
            format!("uid={}", root.0),
            format!("gid={}", root.1),
        ],
        ..Mount::default()
    }
}

/// In a mount namespace of our own.
fn enter_memory(memory: &OwnedFd) -> io::Result<()> {
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    set_attributes(open_directory("/")?, true, slave)?;
    // Any directory will do that root of a user namespace can reach: the bundle is none.
    spawn::attach(memory, open_directory("/proc")?.as_fd())?;
    mounts::switch_root(memory.as_fd())
}

/// The user namespace that owns the pod's network namespace. That of the host would make the pod's root the host's.
fn owner_of_network(container: &plan::Container, proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let Namespace::Path(path) = &container.namespaces.net else {
        return Err(Error::Owner { path: PathBuf::new() });
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let failed = |source| Error::Join {
        kind: "network",
        path: path.clone(),
        source,
    };
    let network = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let owner = namespace::owner(&network).map_err(failed)?;
    let own = rustix::fs::openat(proc, c"self/ns/user", flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let (theirs, ours) = (number(&owner), number(&own));
    if theirs.map_err(|errno| failed(errno.into()))? == ours.map_err(|errno| failed(errno.into()))? {
        return Err(Error::Owner { path: path.clone() });
    }
    Ok(owner)
}

fn open_directory(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
