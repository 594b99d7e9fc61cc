//! Which volumes are compared with a digest, and given to the container as a copy.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime as oci;

use super::harden::is_sandbox;
use super::{Error, MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, Mount, MountSource, Request};
use crate::policy::Policy;

/// What a bind source is to kubelet.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    /// A volume, by the name of its directory.
    Volume(&'a str),
    /// A part of one, by `subPath`.
    Part(&'a str),
    /// Nothing that has a volume's name.
    Other,
}

/// By kubelet's paths: `<root>/pods/<uid>/volumes/<plugin>/<name>`, with `mount` behind it for CSI's, and
/// `<root>/pods/<uid>/volume-subpaths/<name>/<container>/<number>`.
fn source(path: &Path) -> Source<'_> {
    let Some((_, below)) = pod(path) else {
        return Source::Other;
    };
    match below.as_slice() {
        ["volumes", _, name] | ["volumes", _, name, "mount"] => Source::Volume(name),
        ["volumes", _, name, ..] | ["volume-subpaths", name, ..] => Source::Part(name),
        _ => Source::Other,
    }
}

/// The directory of a pod's that a path is in, and the names from there on.
fn pod(path: &Path) -> Option<(PathBuf, Vec<&str>)> {
    let names: Vec<&str> = path
        .components()
        .map(|component| match component {
            Component::RootDir => Some("/"),
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    // The last such pair: what is in a volume is below it.
    let is_pod = |at: &usize| {
        names[*at] == "pods"
            && matches!(
                names.get(at + 2),
                Some(&("volumes" | "volume-subpaths" | "etc-hosts" | "containers"))
            )
    };
    let at = (0..names.len()).find(is_pod)?;
    Some((names[..at + 2].iter().collect(), names[at + 2..].to_vec()))
}

/// The names of the volumes that the pod of a container has, where `policy` demands digests: of a container that mounts
/// only some of them the directories of the others are known all the same.
pub fn pod_volumes(spec: &oci::Spec, policy: &Policy) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if policy.volume_digest.value.0.is_empty() {
        return found;
    }
    let sources = spec
        .mounts()
        .iter()
        .flatten()
        .filter_map(|mount| mount.source().as_deref());
    let pods: BTreeSet<PathBuf> = sources.filter_map(|path| Some(pod(path)?.0)).collect();
    for pod in pods {
        // What cannot be read has no volume: then its name is an error.
        let plugins = std::fs::read_dir(pod.join("volumes")).into_iter().flatten().flatten();
        for plugin in plugins {
            let volumes = std::fs::read_dir(plugin.path()).into_iter().flatten().flatten();
            found.extend(volumes.filter_map(|volume| volume.file_name().into_string().ok()));
        }
    }
    found
}

/// Marks the mounts that the policy has digests of.
///
/// # Errors
/// A digest of a volume that the pod does not have, or that is mounted so that it could not be kept.
pub(super) fn verify(mounts: &mut [Mount], spec: &oci::Spec, request: &Request) -> Result<(), Error> {
    let demanded = &request.policy.volume_digest;
    if demanded.value.0.is_empty() || is_sandbox(spec.annotations().iter().flatten()) {
        return Ok(());
    }
    let refused = |field: String, advice| Error::Policy {
        setting: "volume_digest",
        value: demanded.value.to_string(),
        by: demanded.from,
        field,
        advice,
    };
    let mut found = BTreeSet::new();
    for mount in mounts {
        let MountSource::Bind { path, .. } = &mount.source else {
            continue;
        };
        let by_path = demanded.value.0.get(&mount.destination);
        let source = source(path);
        let (name, digest) = match source {
            Source::Volume(name) | Source::Part(name) => (name, demanded.value.0.get(name)),
            Source::Other => ("", None),
        };
        if digest.is_some() {
            found.insert(name.to_owned());
        }
        if digest.is_some() && by_path.is_none() && matches!(source, Source::Part(_)) {
            let field = format!(
                "only a part of the volume {name:?} is mounted at {}, by subPath",
                mount.destination
            );
            return Err(refused(
                field,
                "give the digest of that part, with the path instead of the volume's name",
            ));
        }
        let Some(digest) = by_path.or(digest) else {
            continue;
        };
        if (mount.set | mount.recursive_set) & MOUNT_ATTR_RDONLY == 0 {
            let field = format!("{} is mounted writable", mount.destination);
            return Err(refused(field, "mount the volume with readOnly: true"));
        }
        mount.digest = Some(digest.clone());
        mount.set |= MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV;
        mount.clear &= !mount.set;
        mount.recursive_clear &= !mount.set;
    }
    let names = demanded.value.0.keys().filter(|name| !name.starts_with('/'));
    for name in names {
        if !found.contains(name) && !request.pod_volumes.contains(name) {
            let field = format!("the pod has no volume {name:?}");
            return Err(refused(
                field,
                "name a volume of the pod's, or the path at which it is mounted",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_s_paths_tell_a_volume_s_name() {
        let of = |path: &str| match source(Path::new(path)) {
            Source::Volume(name) => format!("volume {name}"),
            Source::Part(name) => format!("part of {name}"),
            Source::Other => "other".to_owned(),
        };
        for (path, expected) in [
            (
                "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~configmap/app",
                "volume app",
            ),
            (
                "/srv/kubelet/pods/1-2/volumes/kubernetes.io~csi/pvc-1/mount",
                "volume pvc-1",
            ),
            (
                "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/x/inside",
                "part of x",
            ),
            ("/var/lib/kubelet/pods/1-2/volume-subpaths/app/web/0", "part of app"),
            ("/var/lib/kubelet/pods/1-2/etc-hosts", "other"),
            ("/srv/models", "other"),
            ("/srv/pods/x", "other"),
            // What a volume has in it, made to look like another's.
            ("/k/pods/1/volumes/a~b/evil/pods/2/volumes/a~b/good", "part of evil"),
            ("relative", "other"),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn the_other_volumes_of_the_pod_are_found_beside_the_one_that_is_mounted() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pods/uid");
        for volume in ["kubernetes.io~configmap/app", "kubernetes.io~secret/keys"] {
            std::fs::create_dir_all(pod.join("volumes").join(volume)).unwrap();
        }
        let mut mount = oci::Mount::default();
        mount.set_source(Some(pod.join("etc-hosts")));
        let mut spec = oci::Spec::default();
        spec.set_mounts(Some(vec![mount]));
        let mut policy = Policy::default();
        assert!(pod_volumes(&spec, &policy).is_empty());
        policy.volume_digest.value.0.insert("app".into(), "0".repeat(64));
        assert_eq!(
            pod_volumes(&spec, &policy),
            ["app".to_owned(), "keys".to_owned()].into()
        );
    }
}
