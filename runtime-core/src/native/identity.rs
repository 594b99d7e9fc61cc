//! Who a process is: user, groups, capabilities, no_new_privs. One function, for init and for exec'd processes alike: an
//! exec that came out stronger than init was an escape elsewhere (CVE-2022-29162, CVE-2025-27612).

use std::io;

use crate::plan::Process;
use crate::sys::process;

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
    process::set_capabilities(&sets).map_err(|source| Error::Sets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
        source,
    })?;
    process::set_ambient(sets.ambient).map_err(|source| Error::Ambient(sets.ambient, source))?;
    if plan.no_new_privileges {
        process::set_no_new_privileges().map_err(Error::NoNewPrivileges)?;
    }
    Ok(())
}
