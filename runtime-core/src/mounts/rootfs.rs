//! The root file system as detached mounts: what the snapshotter gives, with ids mapped where it says so.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use super::filesystem::{self, set_propagation};
use super::{Error, idmap, overlay};
use crate::plan::{Container, Mount, MountSource};

/// The rootfs' own mounts; the first is the root. `proc` is the host's /proc.
pub fn open(container: &Container, propagation: u64, proc: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Error> {
    let bundle = &container.bundle;
    let bind = |mount: &Mount, path: &Path, recursive: bool| -> Result<OwnedFd, Error> {
        let fd = filesystem::clone_host(mount, path, recursive, bundle)?;
        set_propagation(&fd, "/", propagation | libc::MS_REC)?;
        Ok(fd)
    };
    if container.rootfs.mounts.is_empty() {
        let mount = Mount {
            destination: "/".into(),
            ..Mount::default()
        };
        return Ok(vec![bind(&mount, &container.rootfs.path, true)?]);
    }
    let open = |mount: &Mount| -> Result<OwnedFd, Error> {
        let fd = match (&mount.source, &mount.idmap) {
            (MountSource::Bind { path, recursive }, _) => bind(mount, path, *recursive)?,
            (MountSource::New { kind, .. }, Some(maps)) if kind == "overlay" => {
                return overlay::open_mapped(mount, maps, &container.rootfs.path, proc);
            }
            _ if overlay::needs_old_way(mount) => overlay::open_old_way(mount, &container.rootfs.path)?,
            _ => filesystem::open(mount)?,
        };
        if let Some(maps) = &mount.idmap {
            idmap::apply(maps, &fd, "/", None, proc)?;
        }
        Ok(fd)
    };
    container.rootfs.mounts.iter().map(open).collect()
}
