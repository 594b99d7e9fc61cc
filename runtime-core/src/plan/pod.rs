//! What a container finds in a pod whose sandbox is the shim's own (containerd's `sandboxer = "shim"`): there
//! containerd leaves the pod's files and its shared memory to the shim.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::{Mount, MountSource};

/// The pod of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Directory of its files, which are called as in /etc: see [`FILES`].
    pub files: PathBuf,
    /// The mount namespace whose root is the memory that its containers share; None where that is the host's.
    pub memory: Option<PathBuf>,
}

/// What of /etc is the pod's, not the image's.
pub const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Where shared memory is.
const SHM: &str = "/dev/shm";

/// Adds the mounts of the pod's files, but where the container has others: those of kubelet's go first. Read-only where
/// the container's root is, as containerd has it.
pub(super) fn give_files(spec: &mut oci::Spec, pod: &Pod) {
    let read_only = spec.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false);
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for name in FILES {
        let destination = Path::new("/etc").join(name);
        let is_taken = |mount: &oci::Mount| mount.destination().components().eq(destination.components());
        if mounts.iter().any(is_taken) {
            continue;
        }
        let access = if read_only { "ro" } else { "rw" };
        let mut mount = oci::Mount::default();
        mount
            .set_destination(destination)
            .set_typ(Some("bind".into()))
            .set_source(Some(pod.files.join(name)))
            .set_options(Some(["rbind", "rprivate", access].map(str::to_owned).into()));
        mounts.push(mount);
    }
    spec.set_mounts(Some(mounts));
}

/// Puts the pod's shared memory where the container would get one of its own by containerd's default. Another mount
/// there, a volume or the host's, is what was asked for.
pub(super) fn share_memory(mounts: &mut [Mount], pod: &Pod) {
    let Some(namespace) = &pod.memory else { return };
    for mount in mounts.iter_mut().filter(|mount| mount.destination == SHM) {
        let is_default =
            matches!(&mount.source, MountSource::New { kind, source } if kind == "tmpfs" && source == "shm");
        if is_default {
            mount.source = MountSource::NamespaceRoot {
                path: namespace.clone(),
            };
            // Its size and mode are the pod's.
            mount.data.clear();
            mount.superblock.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod {
            files: "/bundle".into(),
            memory: Some("/proc/7/ns/mnt".into()),
        }
    }

    fn spec(json: &str) -> oci::Spec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_container_gets_the_files_that_it_does_not_have() {
        let mut spec = spec(
            r#"{"ociVersion":"1.1.0","root":{"path":"r","readonly":true},
                "mounts":[{"destination":"/etc/hosts","type":"bind","source":"/kubelet/hosts","options":["rbind"]}]}"#,
        );
        give_files(&mut spec, &pod());
        let mounts = spec.mounts().clone().unwrap();
        let text = |path: &Path| path.display().to_string();
        let told: Vec<_> = mounts
            .iter()
            .map(|mount| (text(mount.destination()), text(mount.source().as_ref().unwrap())))
            .collect();
        let expected = [
            ("/etc/hosts", "/kubelet/hosts"),
            ("/etc/hostname", "/bundle/hostname"),
            ("/etc/resolv.conf", "/bundle/resolv.conf"),
        ];
        assert_eq!(told, expected.map(|(at, of)| (at.to_owned(), of.to_owned())));
        assert!(mounts[2].options().as_ref().unwrap().contains(&"ro".to_owned()));
    }

    #[test]
    fn only_the_default_of_shared_memory_becomes_the_pod_s() {
        let new = |source: &str| Mount {
            destination: SHM.into(),
            source: MountSource::New {
                kind: "tmpfs".into(),
                source: source.into(),
            },
            data: vec!["size=65536k".into()],
            ..Mount::default()
        };
        let mut mounts = [new("shm"), new("memory-volume")];
        share_memory(&mut mounts, &pod());
        let namespace = MountSource::NamespaceRoot {
            path: "/proc/7/ns/mnt".into(),
        };
        assert_eq!((&mounts[0].source, mounts[0].data.len()), (&namespace, 0));
        assert_eq!(mounts[1], new("memory-volume"));
        let mut of_host = [new("shm")];
        share_memory(&mut of_host, &Pod { memory: None, ..pod() });
        assert_eq!(of_host[0], new("shm"));
    }
}
