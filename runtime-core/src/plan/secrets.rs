//! Which mounts are copied into memory.

use super::{
    IdMap, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Mount, MountSource, Namespaces,
    Process,
};
use crate::policy::Secrets;

/// Part of the path of each volume that kubelet makes of a Secret.
pub(super) const SECRET_VOLUME: &str = "/volumes/kubernetes.io~secret/";

/// Marks the mounts of `policy`, for the user that the container's program starts as.
pub(super) fn keep_in_memory(mounts: &mut [Mount], process: &Process, namespaces: &Namespaces, policy: &Secrets) {
    let Secrets::Memory(named) = policy else { return };
    let owner = (
        on_the_host(process.uid, &namespaces.uid_map),
        on_the_host(process.gid, &namespaces.gid_map),
    );
    for mount in mounts {
        let MountSource::Bind { path, .. } = &mount.source else {
            continue;
        };
        let is_secret = path.to_string_lossy().contains(SECRET_VOLUME);
        if !is_secret && !named.contains(&mount.destination) {
            continue;
        }
        mount.in_memory = Some(owner);
        mount.set |= MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        mount.clear &= !mount.set;
        mount.recursive_clear = 0;
        // The copy belongs to whom it is to belong.
        mount.idmap = None;
    }
}

fn on_the_host(id: u32, map: &[IdMap]) -> u32 {
    let line = map
        .iter()
        .find(|line| (line.container..line.container.saturating_add(line.size)).contains(&id));
    line.map_or(id, |line| line.host + (id - line.container))
}
