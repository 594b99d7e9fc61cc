//! Where a pod's connections may go: nftables rules in its network namespace, in place before its first container
//! starts.
//!
//! The rules are a base chain of a table of ours, named after what they say. Each container of a pod brings its own; a
//! chain that is there already is the same one, and another one stands beside it: what leaves has to be let through by
//! all of them, so that a later container only ever tightens. They end with the namespace. Nobody in it can take them
//! away, nor send past them, without CAP_NET_ADMIN or CAP_NET_RAW over it, which the Plan takes from every container
//! with such a policy.

mod attributes;
mod netlink;
mod resolv_conf;
mod rules;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::policy::Reach;
use crate::sys::namespace;

pub use resolv_conf::name_servers;

/// Why a pod's connections could not be confined: it is not started then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("egress: {operation} the network namespace {path:?}")]
    Namespace {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("egress: {0:?} is the host's own network namespace, where rules for one pod would hold for the node")]
    Host(PathBuf),
    #[error("egress: {operation}")]
    Netlink { operation: &'static str, source: io::Error },
    #[error("egress: the kernel refuses the nftables rules; it needs nf_tables with inet, ct, counter and reject")]
    Refused(#[source] io::Error),
    #[error("egress: the thread that sets the rules ended early")]
    Thread,
}

/// Lets nothing leave the network namespace that `path` names but what goes to `allowed`, stays on its loopback
/// interface, or answers a connection that came from outside. The caller's thread stays where it is.
pub fn enforce_at(path: &Path, allowed: &[Reach]) -> Result<(), Error> {
    // A namespace is a thread's: one that ends afterwards enters it.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            enter(path)?;
            enforce_here(allowed)
        });
        let thread = thread.map_err(|source| Error::Netlink {
            operation: "starting a thread",
            source,
        })?;
        thread.join().map_err(|_| Error::Thread)?
    })
}

/// The same for the network namespace that we are in.
pub fn enforce_here(allowed: &[Reach]) -> Result<(), Error> {
    let chain = rules::chain_name(allowed);
    match netlink::send(rules::messages(allowed, &chain)) {
        // The chain is there, and so are its rules: they came together, and it is named after them.
        Err(Error::Refused(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Enters the namespace with this thread, unless it is the host's: the one we are in.
fn enter(path: &Path) -> Result<(), Error> {
    let failed = |operation| {
        move |source: io::Error| Error::Namespace {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let theirs = File::open(path).map_err(failed("opening"))?;
    let found = theirs.metadata().map_err(failed("looking at"))?;
    let ours = std::fs::metadata("/proc/thread-self/ns/net").map_err(failed("comparing our own with"))?;
    if (found.dev(), found.ino()) == (ours.dev(), ours.ino()) {
        return Err(Error::Host(path.to_owned()));
    }
    namespace::enter(&theirs, libc::CLONE_NEWNET).map_err(failed("entering"))
}

#[cfg(test)]
mod tests;
