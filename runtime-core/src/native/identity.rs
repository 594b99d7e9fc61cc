//! Who a process is: user, groups, capabilities, no_new_privs. One function, for init and for exec'd processes alike:
//! an exec that came out stronger than init was an escape elsewhere (CVE-2022-29162, CVE-2025-27612).

use std::io;
use std::os::fd::OwnedFd;

use super::listener;
use crate::plan::{Capabilities, Process};
use crate::sys::{process, seccomp};

/// Why a process could not become who it is to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("dropping capability {0} from the bounding set")]
    Bounding(u32, #[source] io::Error),
    #[error("keeping capabilities across setuid")]
    Keep(#[source] io::Error),
    #[error("becoming uid {uid}, gid {gid} (is it in the user namespace's maps?)")]
    Ids { uid: u32, gid: u32, source: io::Error },
    #[error("setting capabilities: effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}")]
    Sets {
        effective: u64,
        permitted: u64,
        inheritable: u64,
        source: io::Error,
    },
    #[error("raising ambient capabilities {0:#x}")]
    Ambient(u64, #[source] io::Error),
    #[error("reading our capabilities")]
    Own(#[source] io::Error),
    #[error("linux.seccomp: loading the filter")]
    Filter(#[source] io::Error),
    #[error("linux.seccomp: handing the listener over (a profile that uses it has to allow read and write)")]
    Listener(#[source] io::Error),
    #[error("memory_deny_write_execute: prctl PR_SET_MDWE (it needs Linux 6.3)")]
    WriteExecute(#[source] io::Error),
    #[error("setting no_new_privs")]
    NoNewPrivileges(#[source] io::Error),
}

/// Turns this process into the one that `plan` describes, but for its program.
///
/// # Errors
/// The step that failed; the process must end then, since it stands between two identities.
pub fn assume(plan: &Process) -> Result<(), Error> {
    let sets = plan.capabilities.unwrap_or_default();
    for capability in (0..64).filter(|bit| sets.bounding >> bit & 1 == 0) {
        // Numbers beyond the kernel's last are in no set: the first that it does not know ends the walk.
        if capability > 40 && !process::in_bounding(capability) {
            break;
        }
        process::drop_bounding(capability).map_err(|source| Error::Bounding(capability, source))?;
    }
    process::keep_capabilities(true).map_err(Error::Keep)?;
    process::set_ids(plan.uid, plan.gid, Some(&plan.groups)).map_err(|source| Error::Ids {
        uid: plan.uid,
        gid: plan.gid,
        source,
    })?;
    process::keep_capabilities(false).map_err(Error::Keep)?;
    set(&Capabilities {
        permitted: sets.permitted | filter_needs(plan)?,
        ..sets
    })?;
    process::set_ambient(sets.ambient).map_err(|source| Error::Ambient(sets.ambient, source))?;
    if plan.deny_write_execute {
        process::deny_write_execute().map_err(Error::WriteExecute)?;
    }
    if plan.no_new_privileges {
        process::set_no_new_privileges().map_err(Error::NoNewPrivileges)?;
    }
    Ok(())
}

/// Puts this process under its filters, the listener of which, if one has it, goes to the shim over `socket`: right
/// before execve, so that none of our own calls has to be in the profile.
///
/// # Errors
/// The kernel does not take the filter: see [`seccomp::load`].
pub fn confine(plan: &Process, socket: Option<&OwnedFd>) -> Result<(), Error> {
    if plan.seccomp.is_empty() {
        return Ok(());
    }
    let needed = filter_needs(plan)?;
    if needed != 0 {
        // No capset(2) after it: execve leaves the permitted and effective sets to what is inheritable, bounding and
        // ambient (capabilities(7)), which are final already.
        let own = process::capabilities().map_err(Error::Own)?;
        set(&Capabilities {
            effective: own.effective | needed,
            ..own
        })?;
    }
    for filter in &plan.seccomp {
        if let Some(listener) = seccomp::load(filter).map_err(Error::Filter)? {
            let socket = socket.ok_or_else(|| Error::Listener(io::ErrorKind::NotConnected.into()))?;
            listener::hand_over(listener, socket).map_err(Error::Listener)?;
        }
    }
    Ok(())
}

/// CAP_SYS_ADMIN, where a filter is to be loaded without no_new_privs (seccomp(2)), and where there is any.
fn filter_needs(plan: &Process) -> Result<u64, Error> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    if plan.seccomp.is_empty() || plan.no_new_privileges {
        return Ok(0);
    }
    let own = process::capabilities().map_err(Error::Own)?;
    Ok(own.permitted & CAP_SYS_ADMIN)
}

fn set(sets: &Capabilities) -> Result<(), Error> {
    process::set_capabilities(sets).map_err(|source| Error::Sets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
        source,
    })
}
