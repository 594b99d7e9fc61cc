//! The container's view of its own cgroups: on v1 a tmpfs with one bind mount a hierarchy.

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

/// Mounts the view at the mount's destination. Returns the tmpfs, which is to become read-only at the end if the mount is.
pub fn attach_view(root: BorrowedFd<'_>, mount: &Mount, hierarchies: &[HierarchyView]) -> Result<OwnedFd, Error> {
    let base = Mount {
        destination: mount.destination.clone(),
        source: MountSource::New {
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
        },
        set: mount.set & !MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        data: vec!["mode=755".into()],
        ..Mount::default()
    };
    let view = filesystem::open(&base)?;
    let target = paths::target(root, &mount.destination, false)?;
    attach(&view, target.as_fd()).map_err(|source| Error::Attach {
        destination: mount.destination.clone(),
        source,
    })?;
    for hierarchy in hierarchies {
        bind(view.as_fd(), hierarchy, mount.set).map_err(|source| Error::Attach {
            destination: format!("{}/{}", mount.destination, hierarchy.name),
            source,
        })?;
    }
    Ok(view)
}

fn bind(view: BorrowedFd<'_>, hierarchy: &HierarchyView, set: u64) -> io::Result<()> {
    rustix::fs::mkdirat(view, hierarchy.name.as_str(), Mode::from_raw_mode(0o755))?;
    let target = rustix::fs::openat(
        view,
        hierarchy.name.as_str(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, &hierarchy.directory, flags)?;
    set_attributes(
        &clone,
        false,
        MountAttr {
            set,
            ..MountAttr::default()
        },
    )?;
    attach(&clone, target.as_fd())?;
    // Where controllers share a hierarchy, each is found by its own name as well.
    for name in hierarchy.name.split(',').filter(|name| *name != hierarchy.name) {
        rustix::fs::symlinkat(hierarchy.name.as_str(), view, name)?;
    }
    Ok(())
}
