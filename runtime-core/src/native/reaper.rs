//! `init = true`: a process of ours stays the container's first, and the workload is its child.
//!
//! It forwards signals, reaps whatever is left to it, and ends with the workload's status. It has the workload's user,
//! no capability but CAP_KILL, no file, and the workload's system call filter; its memory cannot be looked at from
//! inside.

use std::io;

use super::identity;
use super::init::Error;
use crate::plan::{Capabilities, Process};
use crate::sys::fork::{Fork, fork};
use crate::sys::process::{self, Ended};
use crate::sys::{signal, spawn};

/// By its number: capabilities(7).
const CAP_KILL: u64 = 1 << 5;

/// Forks: returns in the child, which goes on to become the workload. `plan` is the workload's.
pub fn stay_as_init(plan: &Process) -> Result<(), Error> {
    // What arrives from here on waits until somebody asks for it. To the first process of a PID namespace the kernel
    // does not even deliver what it neither handles nor blocks.
    signal::block_all().map_err(io("blocking signals"))?;
    match fork(0).map_err(io("forking the workload from its init"))? {
        Fork::Child => {
            spawn::reset_signals();
            // The terminal, if there is one, is the workload's: for that it leads a session.
            rustix::process::setsid().map_err(|errno| io("giving the workload a session")(errno.into()))?;
            Ok(())
        }
        Fork::Parent(workload, _) => match confine(plan) {
            Ok(()) => process::exit_now(reap(workload)),
            // The workload's process has the socket to say why; this one only ends, and the kernel ends that one with
            // it.
            Err(_) => process::exit_now(1),
        },
    }
}

/// Without a PID namespace of its own, a container's orphans would be the shim's.
fn confine(plan: &Process) -> Result<(), Error> {
    process::become_subreaper().map_err(io("becoming the reaper of orphans"))?;
    process::close_from(0).map_err(io("closing files"))?;
    let kill = plan.capabilities.unwrap_or_default().permitted & CAP_KILL;
    let own = Process {
        capabilities: Some(Capabilities {
            permitted: kill,
            effective: kill,
            ..Capabilities::default()
        }),
        // It executes nothing: so its filter needs no capability.
        no_new_privileges: true,
        seccomp: plan.seccomp.clone(),
        uid: plan.uid,
        gid: plan.gid,
        groups: plan.groups.clone(),
        deny_write_execute: plan.deny_write_execute,
        ..Process::default()
    };
    let identity = |error: identity::Error| Error::Entry(error.into());
    identity::assume(&own).map_err(identity)?;
    // The plan has no filter with a listener beside `init`.
    identity::confine(&own, None).map_err(identity)
}

/// Until the workload ends; its status, as a shell would tell it.
fn reap(workload: i32) -> i32 {
    loop {
        match signal::wait_for_any() {
            Ok(libc::SIGCHLD) => {
                while let Ok(Some((pid, ended))) = process::reap_any() {
                    match ended {
                        Ended::Code(code) if pid == workload => return code,
                        Ended::Signal(signal) if pid == workload => return 128 + signal,
                        _ => {}
                    }
                }
            }
            // One that has just ended is told by its own signal.
            Ok(number) => drop(process::send_signal_to(workload, number)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A filter that denies waiting: without it nothing could be done for the workload any more.
            Err(_) => return 1,
        }
    }
}

fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
