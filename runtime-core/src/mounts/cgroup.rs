//! The container's view of its own cgroups: on v1 a tmpfs with one bind mount a hierarchy, on v2 the cgroup itself.
//! Bound, not mounted anew: what a new mount of cgroup2 shows depends on who mounts it, and the holder is not in the
//! cgroup.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Error, filesystem, paths};
use crate::mounts::HierarchyView;
use crate::plan::{Mount, MountSource};
use crate::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, set_attributes,
};
use crate::sys::spawn::attach;

/// Mounts the view at the mount's destination. Returns the mount, which is to become read-only at the end if it is so
/// meant.
pub fn attach_view(root: BorrowedFd<'_>, mount: &Mount, hierarchies: &[HierarchyView]) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Attach {
        destination: mount.destination.clone(),
        source,
    };
    if let [only] = hierarchies
        && only.name.is_empty()
    {
        let clone = clone(only, mount.set).map_err(failed)?;
        let target = paths::target(root, &mount.destination, false)?;
        attach(&clone, target.as_fd()).map_err(failed)?;
        return Ok(clone);
    }
    let mut data = vec!["mode=755".to_owned()];
    data.extend(
        mount
            .data
            .iter()
            .filter(|option| option.starts_with("context="))
            .cloned(),
    );
    let base = Mount {
        destination: mount.destination.clone(),
        source: MountSource::New {
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
        },
        set: mount.set & !MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        data,
        ..Mount::default()
    };
    let view = filesystem::open(&base)?;
    let target = paths::target(root, &mount.destination, false)?;
    attach(&view, target.as_fd()).map_err(failed)?;
    for hierarchy in hierarchies {
        bind(view.as_fd(), hierarchy, mount.set).map_err(|source| Error::Attach {
            destination: format!("{}/{}", mount.destination, hierarchy.name),
            source,
        })?;
    }
    Ok(view)
}

/// The container's own directory as a mount that is nowhere yet.
fn clone(hierarchy: &HierarchyView, set: u64) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, &hierarchy.directory, flags)?;
    let attributes = MountAttr {
        set,
        ..MountAttr::default()
    };
    set_attributes(&clone, false, attributes)?;
    Ok(clone)
}

fn bind(view: BorrowedFd<'_>, hierarchy: &HierarchyView, set: u64) -> io::Result<()> {
    rustix::fs::mkdirat(view, hierarchy.name.as_str(), Mode::from_raw_mode(0o755))?;
    let target = rustix::fs::openat(
        view,
        hierarchy.name.as_str(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    attach(&clone(hierarchy, set)?, target.as_fd())?;
    // Where controllers share a hierarchy, each is found by its own name as well.
    for name in hierarchy.name.split(',').filter(|name| *name != hierarchy.name) {
        rustix::fs::symlinkat(hierarchy.name.as_str(), view, name)?;
    }
    Ok(())
}
