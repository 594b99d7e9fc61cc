//! The root of another mount namespace, cloned: a mount can be cloned only by who is in its namespace (open_tree(2)).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::Error;
use super::filesystem::set_mount_attributes;
use crate::plan::Mount;
use crate::sys::namespace;

/// A detached clone of what the mount namespace at `path` has for its root, with the attributes of `mount`. This
/// process goes there and comes back: it must have one thread. `proc` is the host's /proc.
pub fn clone(mount: &Mount, path: &Path, proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let cloned = clone_in(path, proc).map_err(|source| Error::Source {
        path: path.to_owned(),
        destination: mount.destination.clone(),
        source,
    })?;
    set_mount_attributes(&cloned, mount)?;
    Ok(cloned)
}

fn clone_in(path: &Path, proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let namespace_flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let there = rustix::fs::open(path, namespace_flags, Mode::empty())?;
    let here = rustix::fs::openat(proc, c"self/ns/mnt", namespace_flags, Mode::empty())?;
    let root = rustix::fs::open(c"/", directory, Mode::empty())?;
    let working = rustix::fs::open(c".", directory, Mode::empty())?;
    namespace::enter(&there, libc::CLONE_NEWNS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cloned = open_tree(CWD, c"/", flags);
    // Whoever enters a namespace finds himself at its root: the shim's own may be another one.
    namespace::enter(&here, libc::CLONE_NEWNS)?;
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(c".")?;
    rustix::process::fchdir(&working)?;
    Ok(cloned?)
}
