//! The two kinds of processes that the holder forks, in their own words: init, and one exec'd beside it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::entry::{self, Prepared};
use super::holder::Inside;
use super::wire::{self, Tag};
use super::{console, lifecycle_hooks, reaper};
use crate::plan::{Namespace, Process};
use crate::sys::{namespace, process};

/// Why init or an exec'd process ended before its program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Entry(#[from] entry::Error),
    #[error(transparent)]
    Console(#[from] console::Error),
    #[error(transparent)]
    Mount(#[from] crate::mounts::Error),
    #[error("{operation}")]
    Io {
        operation: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Hook(super::Error),
    /// The shim or the holder is gone: nobody waits for us.
    #[error("the shim has gone")]
    Alone,
}

/// Init: never returns to the holder's code. `sibling` is the holder's end of the set-up, `socket` the shim's.
pub fn run_init(inside: &Inside, plan: &Process, sibling: OwnedFd, socket: OwnedFd, terminal: Option<OwnedFd>) -> ! {
    let result = init(inside, plan, sibling, &socket, terminal);
    finish(result, plan, &socket)
}

fn init(
    inside: &Inside,
    plan: &Process,
    sibling: OwnedFd,
    socket: &OwnedFd,
    terminal: Option<OwnedFd>,
) -> Result<Prepared, Error> {
    let namespaces = &inside.container.namespaces;
    entry::join_cgroups(&inside.join)?;
    if namespaces.user != Namespace::Host {
        // The shim puts us into the unified hierarchy: a cgroup namespace shows what its maker was in.
        wait_for_go(socket)?;
    }
    match &namespaces.cgroup {
        Namespace::New => namespace::unshare(libc::CLONE_NEWCGROUP).map_err(io("unsharing the cgroup namespace"))?,
        Namespace::Path(_) | Namespace::Host => inside.enter_cgroup_namespace()?,
    }
    // A process must be in the PID namespace to make the proc that shows it, before Linux 6.17; the holder is not.
    let mut instances = vec![inside.open_own_cgroup_namespace()?];
    for mount in inside
        .container
        .mounts
        .iter()
        .filter(|mount| !inside.has_procs && crate::mounts::is_proc(mount))
    {
        instances.push(crate::mounts::open_filesystem(mount)?);
    }
    let fds: Vec<_> = instances.iter().map(AsFd::as_fd).collect();
    wire::send(&sibling, Tag::Instances, &[], &fds).map_err(io("handing /proc to the holder"))?;
    drop(instances);

    entry::leave_session(&inside.container.id, !inside.container.no_new_keyring)?;
    if namespaces.user == Namespace::Host {
        entry::set_limits(inside.proc.as_fd(), plan)?;
    }
    wait_for_go(&sibling)?;
    drop(sibling);
    if inside.container.init {
        reaper::stay_as_init(plan)?;
    }
    if let Some(terminal) = terminal {
        console::adopt(terminal)?;
    }
    let root = inside.open_root()?;
    let prepared = entry::prepare(root.as_fd(), inside.proc.as_fd(), plan)?;
    wire::send(socket, Tag::Ready, &[], &[]).map_err(|_| Error::Alone)?;
    wait_for_go(socket)?;
    let hooks = inside.container.hooks.start_container.iter();
    let (pid, root) = (std::process::id() as i32, Path::new("/"));
    lifecycle_hooks::run_hooks(hooks, &inside.container, "created", pid, root).map_err(Error::Hook)?;
    Ok(prepared)
}

/// An exec'd process: never returns to the holder's code. `outside`: it is not in the container's cgroup yet.
pub fn run_exec(inside: &Inside, plan: &Process, socket: OwnedFd, outside: bool) -> ! {
    let result = exec(inside, plan, &socket, outside);
    finish(result, plan, &socket)
}

fn exec(inside: &Inside, plan: &Process, socket: &OwnedFd, outside: bool) -> Result<Prepared, Error> {
    if let Some(cpus) = plan
        .cpu_affinity
        .as_ref()
        .and_then(|affinity| affinity.initial.as_deref())
    {
        entry::set_affinity(cpus)?;
    }
    entry::join_cgroups(&inside.join)?;
    inside.enter_cgroup_namespace()?;
    // Early: before it, a kill(0) of the program's own would reach the holder.
    entry::leave_session(&inside.container.id, !inside.container.no_new_keyring)?;
    let mapped = inside.container.namespaces.user != Namespace::Host;
    if mapped || outside {
        wait_for_go(socket)?;
    }
    if !mapped {
        entry::set_limits(inside.proc.as_fd(), plan)?;
    }
    let root = inside.open_root()?;
    if plan.terminal {
        let (master, slave) = console::open(inside.proc.as_fd(), root.as_fd(), plan.console_size)?;
        console::give(&slave, plan.uid)?;
        wire::send(socket, Tag::Console, &[], &[master.as_fd()]).map_err(|_| Error::Alone)?;
        console::adopt(slave)?;
    }
    Ok(entry::prepare(root.as_fd(), inside.proc.as_fd(), plan)?)
}

/// The execve, or the reason why not.
fn finish(result: Result<Prepared, Error>, plan: &Process, socket: &OwnedFd) -> ! {
    let error = match result {
        Ok(prepared) => Error::from(entry::execute(&prepared, plan, socket)),
        Err(error) => error,
    };
    if !matches!(error, Error::Alone) {
        wire::report(socket, &crate::error_chain::chain(&error));
    }
    process::exit_now(1)
}

fn wait_for_go(socket: &OwnedFd) -> Result<(), Error> {
    match wire::receive(socket).map_err(io("waiting for the word to go on"))? {
        Some(message) if message.tag == Tag::Go => Ok(()),
        _ => Err(Error::Alone),
    }
}

fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
