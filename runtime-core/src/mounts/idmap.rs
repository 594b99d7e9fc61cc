//! Mounts whose ids are mapped: mount_setattr(2), MOUNT_ATTR_IDMAP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Error;
use crate::plan::MountIdMap;
use crate::sys::mount::{MOUNT_ATTR_IDMAP, MountAttr, set_attributes};
use crate::sys::user_namespace;

/// Maps the ids of a detached mount: by maps of its own, else by the container's user namespace. `proc` is the host's.
pub fn apply(
    idmap: &MountIdMap,
    mount: impl AsFd,
    destination: &str,
    user_namespace: Option<BorrowedFd<'_>>,
    proc: BorrowedFd<'_>,
) -> Result<(), Error> {
    let own = if idmap.uid_map.is_empty() && idmap.gid_map.is_empty() {
        None
    } else {
        Some(user_namespace::new(&idmap.uid_map, &idmap.gid_map, proc)?)
    };
    let failed = |source| Error::IdMap {
        destination: destination.to_owned(),
        source,
    };
    let userns = own.as_ref().map(AsFd::as_fd).or(user_namespace);
    let userns = userns.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
    set_attributes(mount, idmap.recursive, by(userns)).map_err(failed)
}

/// The attribute that maps by a user namespace.
pub fn by(userns: BorrowedFd<'_>) -> MountAttr<'_> {
    MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns: Some(userns),
        ..MountAttr::default()
    }
}
