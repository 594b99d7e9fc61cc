//! The container's Landlock domain: entered by the holder before it forks init, so that init and every exec'd process are
//! in one and the same. Two equal domains made apart are strangers: a process in one cannot trace, nor look at, one in the
//! other.

use std::io;
use std::os::fd::AsFd;

use crate::plan::Domain;
use crate::sys::landlock::{ACCESS_FS_EXECUTE, ACCESS_FS_REFER, Ruleset, SCOPE_ABSTRACT_UNIX_SOCKET};

/// Puts this process into the domain of the container whose root directory is `root`, of which everything may be executed
/// and renamed. What it takes away is what every domain that is about files takes: mounting, moving mounts, switching the
/// root, tracing what is outside.
///
/// The rule is on the root's own inode: one on `/`, as it is before the switch of the root, would be about the host's.
///
/// # Errors
/// The kernel's; nothing is restricted then.
pub fn enter(domain: &Domain, root: impl AsFd) -> io::Result<()> {
    let access = ACCESS_FS_EXECUTE | ACCESS_FS_REFER;
    let scoped = if domain.scope_abstract_sockets {
        SCOPE_ABSTRACT_UNIX_SOCKET
    } else {
        0
    };
    let ruleset = Ruleset::new(access, scoped)?;
    ruleset.allow(root, access)?;
    ruleset.restrict_self()
}
