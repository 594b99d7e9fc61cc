//! What is left to be mounted once init exists: proc, what hides parts of it, the switch of the root; and the hooks
//! between.
//!
//! Done by a process of its own, which the holder forks before it enters the container's Landlock domain: a domain
//! denies every change of the mount table, and init, like all that is exec'd later, has to come from the holder inside
//! it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::holder::Error;
use super::lifecycle_hooks;
use super::wire::{self, Message, Tag};
use crate::error_chain::chain;
use crate::mounts::{self, HierarchyView, Tree};
use crate::plan::{self, Process};
use crate::sys::fork::{Fork, fork};
use crate::sys::message;
use crate::sys::process::{self, Ended};

/// The holder's hold on the process that mounts.
#[derive(Debug)]
pub struct Late {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

impl Late {
    /// Forks it. It waits for [`Self::finish`], and ends with the holder.
    pub fn fork(
        tree: Tree,
        container: &plan::Container,
        init: &Process,
        hierarchies: &[HierarchyView],
        control: &OwnedFd,
        proc: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let (socket, theirs) = message::pair().map_err(io("making the socket to the process that mounts"))?;
        match fork(0).map_err(io("forking the process that mounts"))? {
            Fork::Child => {
                drop(socket);
                let ended = process::end_with_parent()
                    .map_err(io("tying the process that mounts to the holder"))
                    .and_then(|()| {
                        mount(tree, container, init, hierarchies, control, &theirs)
                            .and_then(|tree| audit(&tree, container, control, proc))
                    });
                match ended {
                    Ok(()) => process::exit_now(0),
                    Err(error) => {
                        if !matches!(error, Error::Alone) {
                            wire::report(control, &chain(&error));
                        }
                        process::exit_now(1)
                    }
                }
            }
            Fork::Parent(_, pidfd) => Ok(Self { socket, pidfd }),
        }
    }

    /// Lets it mount the proc `instances` of init, which has `pid`, and all the rest; waits for its end.
    pub fn finish(self, pid: i32, instances: &[BorrowedFd<'_>]) -> Result<(), Error> {
        // If it is gone, its end says so.
        let _ = wire::send(&self.socket, Tag::Instances, pid.to_string().as_bytes(), instances);
        match process::reap(&self.pidfd).map_err(io("waiting for the process that mounts"))? {
            Ended::Code(0) => Ok(()),
            // It told the shim itself.
            Ended::Code(_) => Err(Error::Told),
            Ended::Signal(signal) => Err(Error::Killed { signal }),
        }
    }
}

fn mount(
    mut tree: Tree,
    container: &plan::Container,
    init: &Process,
    hierarchies: &[HierarchyView],
    control: &OwnedFd,
    holder: &OwnedFd,
) -> Result<Tree, Error> {
    let (pid, instances) = match wire::receive(holder).map_err(io("hearing from the holder"))? {
        Some(Message {
            tag: Tag::Instances,
            payload,
            fds,
        }) => (String::from_utf8_lossy(&payload).parse().unwrap_or(0), fds),
        _ => return Err(Error::Alone),
    };
    tree.attach_proc(container, instances.into_iter(), hierarchies)?;
    tree.seal_paths(container)?;
    run_hooks(container, control, pid)?;
    tree.finish(container, &init.cwd)?;
    Ok(tree)
}

/// The last look, when nothing changes the mounts any more but who is allowed to.
fn audit(tree: &Tree, container: &plan::Container, control: &OwnedFd, proc: BorrowedFd<'_>) -> Result<(), Error> {
    let differences = tree.audit(container, proc)?;
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = differences.join("\n");
    if container.refuse_differences {
        return Err(mounts::Error::Differs(text.replace('\n', "; ")).into());
    }
    text.truncate(text.floor_char_boundary(message::MAX_BYTES / 2));
    wire::send(control, Tag::Differences, text.as_bytes(), &[]).map_err(|_| Error::Alone)
}

/// Runtime hooks run in the shim's namespaces, container hooks in the container's before the root is switched.
fn run_hooks(container: &plan::Container, control: &OwnedFd, pid: i32) -> Result<(), Error> {
    let hooks = &container.hooks;
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        wire::send(control, Tag::Hooks, &[], &[]).map_err(|_| Error::Alone)?;
        match wire::receive(control).map_err(io("waiting for the runtime hooks"))? {
            Some(message) if message.tag == Tag::Go => {}
            _ => return Err(Error::Alone),
        }
    }
    lifecycle_hooks::run_hooks(
        hooks.create_container.iter(),
        container,
        "creating",
        pid,
        &container.bundle,
    )
    .map_err(Error::Hook)
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
