//! Volumes that a pod's sentry keeps, instead of asking the host for every file: emptyDir volumes where the node or the
//! pod says so, and the pod's /dev/shm.
//!
//! runsc learns of them once, from the annotations `dev.gvisor.spec.mount.<name>.…` of the sandbox's own document
//! (`runsc/boot/mount_hints.go`): it makes one tmpfs for each, at its first use, which every container with a mount of
//! the same source then shares. A volume on disk keeps its content in one file of its directory, so that it counts for
//! what the pod uses of the node's disk, and is limited by it.
//!
//! A volume is kept as a whole or not at all: whoever mounts a part of it (`subPath`, a directory that kubelet makes on
//! the host) would see other files than the rest of the pod. What it is to be shows at its first use.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::config::{Config, EmptyDir};
use super::wishes::{ANNOTATIONS, is_name, refused, wishes};
use super::{Error, file};
use crate::plan::{Mount, MountSource, Plan};
use crate::sys::mount::TMPFS_MAGIC;

/// CRI's annotation with the pod's uid (containerd's `internal/cri/annotations`).
const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// Where kubelet has the emptyDir volumes, in the pod's directory.
const PLUGIN: &str = "volumes/kubernetes.io~empty-dir";
/// What the name of the file begins with that a sentry keeps a volume's content in.
const FILESTORE: &str = ".gvisor.filestore.";

/// The volumes of one sandbox that its sentry keeps.
#[derive(Debug, Default)]
pub struct EmptyDirs {
    volumes: Vec<Volume>,
    /// What became of each.
    uses: Mutex<Vec<Use>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    /// The directory on the host that containers mount.
    source: PathBuf,
    medium: Medium,
    /// Of the tmpfs that the sentry makes: owner and mode as on the host, and the size of one in memory.
    options: String,
    /// Whether the pod itself asked for it.
    is_asked_for: bool,
}

/// Where the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// In the sentry's memory.
    Memory,
    /// In one file of the volume's directory.
    Disk,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Use {
    #[default]
    None,
    /// The sentry has its content.
    Kept,
    /// The host has, as without any of this.
    Shared,
}

/// How a mount of a kept volume is given to runsc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name of its source, among those of the sandbox's mounts.
    pub name: String,
    /// Whether the host has nothing of it.
    pub in_memory: bool,
}

impl EmptyDirs {
    /// Those of the pod that `plan` is the first container of.
    ///
    /// # Errors
    /// An annotation that cannot be honoured.
    pub fn find(plan: &Plan, config: &Config) -> Result<Self, Error> {
        let mut volumes = Vec::new();
        let wishes = wishes(plan)?;
        let mut wished = BTreeSet::new();
        let found = directories(plan, &config.kubelet_root);
        for (name, wish) in &wishes {
            let source = match wish.source {
                Some(source) => named(plan, name, source)?,
                None => found.get(*name).cloned().ok_or_else(|| {
                    refused(
                        name,
                        "type",
                        "the pod has no emptyDir volume of this name below gvisor.kubelet_root; remove the annotation",
                    )
                })?,
            };
            wished.insert(source.clone());
            if wish.share != Some("shared") {
                let medium = (wish.kind == Some("tmpfs")).then_some(Medium::Memory);
                volumes.extend(Volume::of(source, medium, true)?);
            }
        }
        if config.empty_dir == EmptyDir::Sentry {
            for source in found.into_values().filter(|source| !wished.contains(source)) {
                volumes.extend(Volume::of(source, None, false)?);
            }
        }
        for mount in &plan.container.mounts {
            if let ("/dev/shm", Some(source)) = (mount.destination.as_str(), source(mount)) {
                let shm = Volume::of(source.to_owned(), None, false)?;
                volumes.extend(shm.filter(|shm| shm.medium == Medium::Memory && !wished.contains(&shm.source)));
            }
        }
        let uses = Mutex::new(vec![Use::None; volumes.len()]);
        Ok(Self { volumes, uses })
    }

    /// The annotations that tell runsc of them; `mounts` is where the sources of mounts are.
    pub fn annotations(&self, mounts: &Path) -> Map<String, Value> {
        let fields = |(index, volume): (usize, &Volume)| {
            let source = mounts.join(name(index)).to_string_lossy().into_owned();
            [
                ("source", source),
                ("type", "tmpfs".to_owned()),
                ("share", "pod".to_owned()),
                ("options", volume.options.clone()),
            ]
            .map(|(field, value)| (format!("{ANNOTATIONS}{}.{field}", name(index)), Value::String(value)))
        };
        self.volumes.iter().enumerate().flat_map(fields).collect()
    }

    /// The files on the host that their content will be in.
    pub fn filestores(&self, sandbox: &str) -> Vec<PathBuf> {
        let on_disk = self.volumes.iter().filter(|volume| volume.medium == Medium::Disk);
        on_disk.map(|volume| volume.source.join(filestore(sandbox))).collect()
    }

    /// Which of a container's mounts, by their index, are of kept volumes. Decides what a volume is, at its first use.
    ///
    /// # Errors
    /// A part of a volume that the sentry keeps.
    pub fn of_container(&self, mounts: &[Mount]) -> Result<BTreeMap<usize, Kept>, Error> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let of_volume = |is: &dyn Fn(&Volume, &Path) -> bool| {
            let mut found = Vec::new();
            for (at, mount) in mounts.iter().enumerate() {
                let Some(path) = source(mount) else { continue };
                let volumes = self.volumes.iter().enumerate();
                found.extend(
                    volumes
                        .filter(|(_, volume)| is(volume, path))
                        .map(|(index, _)| (at, index)),
                );
            }
            found
        };
        for (at, index) in of_volume(&Volume::has_part) {
            if uses[index] == Use::Kept || self.volumes[index].is_asked_for {
                return Err(Error::Unsupported {
                    field: format!("mounts: {}", mounts[at].destination),
                    reason: "a part of an emptyDir volume whose content the sentry keeps: set the pod's annotation \
                             dev.gvisor.spec.mount.<volume>.share to shared",
                });
            }
            uses[index] = Use::Shared;
        }
        let mut kept = BTreeMap::new();
        for (at, index) in of_volume(&Volume::is_at) {
            let volume = &self.volumes[index];
            if uses[index] == Use::None {
                // Whoever put something there since, it is to be seen.
                uses[index] = if volume.is_empty()? { Use::Kept } else { Use::Shared };
            }
            if uses[index] == Use::Kept {
                let in_memory = volume.medium == Medium::Memory;
                let name = name(index);
                kept.insert(at, Kept { name, in_memory });
            }
        }
        Ok(kept)
    }
}

/// The name of the file at the top of a directory that a sentry keeps its content in.
pub fn filestore(sandbox: &str) -> String {
    format!("{FILESTORE}{sandbox}")
}

/// What a volume's source is called among those of the sandbox's mounts; the others have numbers.
fn name(index: usize) -> String {
    format!("volume-{index}")
}

/// What a bind mount shows, where it is the host's own directory and no copy of it.
fn source(mount: &Mount) -> Option<&Path> {
    match &mount.source {
        MountSource::Bind { path, .. } if mount.in_memory.is_none() && mount.digest.is_none() => Some(path),
        _ => None,
    }
}

impl Volume {
    /// That of a directory, unless its content has to stay on the host: something is in it already, or it is of a kind
    /// that a sentry has not (huge pages).
    fn of(source: PathBuf, medium: Option<Medium>, is_asked_for: bool) -> Result<Option<Self>, Error> {
        let failed = |error| file("looking at the emptyDir volume", &source)(error);
        let stat = source.symlink_metadata().map_err(failed)?;
        let above = source.parent().unwrap_or(&source).metadata().map_err(failed)?;
        let statfs = rustix::fs::statfs(&source).map_err(|errno| failed(errno.into()))?;
        let found = match (stat.dev() == above.dev(), statfs.f_type as u64) {
            (true, _) => Medium::Disk,
            (false, TMPFS_MAGIC) => Medium::Memory,
            (false, _) => return Ok(None),
        };
        let mut options = format!(
            "rw,mode={:o},uid={},gid={}",
            stat.mode() & 0o7777,
            stat.uid(),
            stat.gid()
        );
        if found == Medium::Memory && statfs.f_blocks > 0 {
            options += &format!(",size={}", statfs.f_blocks * statfs.f_bsize as u64);
        }
        let volume = Self {
            source,
            medium: medium.unwrap_or(found),
            options,
            is_asked_for,
        };
        Ok((stat.is_dir() && volume.is_empty()?).then_some(volume))
    }

    /// Whether nothing is in it but what an earlier sentry kept there.
    fn is_empty(&self) -> Result<bool, Error> {
        let failed = |error| file("reading the emptyDir volume", &self.source)(error);
        for entry in std::fs::read_dir(&self.source).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !name.as_encoded_bytes().starts_with(FILESTORE.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_at(&self, path: &Path) -> bool {
        self.source == path
    }

    /// Whether a path is of something in it: below it, or where kubelet mounts a `subPath`.
    fn has_part(&self, path: &Path) -> bool {
        let below = |top: &Path| path != top && path.starts_with(top);
        let Some((pod, name)) = self.source.ancestors().nth(3).zip(self.source.file_name()) else {
            return below(&self.source);
        };
        below(&self.source) || below(&pod.join("volume-subpaths").join(name))
    }
}

/// The pod's emptyDir volumes, by name.
fn directories(plan: &Plan, roots: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let Some(uid) = plan.container.annotation(POD_UID).filter(|uid| is_name(uid)) else {
        return found;
    };
    for root in roots {
        let above = root.join("pods").join(uid).join(PLUGIN);
        // A pod of another kubelet's, or without such volumes.
        for entry in std::fs::read_dir(&above).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                found.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    found
}

/// The directory that a pod says a volume of its has: kubelet's path of an emptyDir, and no other.
fn named(plan: &Plan, name: &str, source: &str) -> Result<PathBuf, Error> {
    let path = Path::new(source);
    let is_plain = path
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    let names: Vec<&OsStr> = path.iter().collect();
    let is_emptydir = match names.as_slice() {
        [.., pods, uid, volumes, plugin, last] => {
            let is_pod_s = plan.container.annotation(POD_UID).is_none_or(|own| *uid == own);
            *pods == "pods" && is_pod_s && Path::new(volumes).join(plugin) == Path::new(PLUGIN) && *last == name
        }
        _ => false,
    };
    if path.is_absolute() && is_plain && is_emptydir && path.is_dir() {
        return Ok(path.to_owned());
    }
    Err(refused(
        name,
        "source",
        "it is to be the directory of an emptyDir volume of this name, below kubelet's pods/<uid>/volumes: no other \
         volume is the sentry's to keep",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spec::tests::plan;
    use super::*;
    use crate::policy::Policy;

    /// A kubelet's root with a pod that has the volumes `data` and `cache`.
    struct Node {
        root: tempfile::TempDir,
        config: Config,
    }

    impl Node {
        fn new(setting: EmptyDir) -> Self {
            let root = tempfile::tempdir().unwrap();
            for name in ["data", "cache"] {
                std::fs::create_dir_all(root.path().join("pods/u-1").join(PLUGIN).join(name)).unwrap();
            }
            let config = Config {
                empty_dir: setting,
                kubelet_root: vec!["/nonexistent".into(), root.path().into()],
                ..Config::of(&Policy::default())
            };
            Self { root, config }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.root.path().join("pods/u-1").join(below)
        }

        fn volume(&self, name: &str) -> PathBuf {
            self.path(PLUGIN).join(name)
        }

        fn find(&self, annotations: &[(&str, &str)]) -> Result<EmptyDirs, String> {
            let plan = plan(|spec| {
                spec["annotations"] = json!({POD_UID: "u-1"});
                for (key, value) in annotations {
                    spec["annotations"][format!("{ANNOTATIONS}{key}")] = json!(value);
                }
            });
            EmptyDirs::find(&plan, &self.config).map_err(|error| error.to_string())
        }

        fn sources(&self, annotations: &[(&str, &str)]) -> Vec<PathBuf> {
            let found = self.find(annotations).unwrap();
            found.volumes.into_iter().map(|volume| volume.source).collect()
        }
    }

    fn bind(path: PathBuf) -> Mount {
        Mount {
            destination: "/mnt".into(),
            source: MountSource::Bind { path, recursive: true },
            ..Mount::default()
        }
    }

    #[test]
    fn volumes_are_kept_where_the_node_or_the_pod_says_so() {
        let host = Node::new(EmptyDir::Host);
        assert!(host.sources(&[]).is_empty());
        let asked = [("data.share", "pod"), ("data.type", "bind")];
        assert_eq!(host.sources(&asked), [host.volume("data")]);

        let sentry = Node::new(EmptyDir::Sentry);
        assert_eq!(sentry.sources(&[]), [sentry.volume("cache"), sentry.volume("data")]);
        let declined = [("data.share", "shared"), ("data.type", "bind")];
        assert_eq!(sentry.sources(&declined), [sentry.volume("cache")]);
    }

    #[test]
    fn one_that_has_content_is_the_host_s() {
        let node = Node::new(EmptyDir::Sentry);
        std::fs::write(node.volume("data").join("file"), "").unwrap();
        std::fs::write(node.volume("cache").join(".gvisor.filestore.earlier"), "").unwrap();
        assert_eq!(node.sources(&[]), [node.volume("cache")]);
        // Something comes into it before it is first used.
        let found = node.find(&[]).unwrap();
        std::fs::write(node.volume("cache").join("socket"), "").unwrap();
        assert!(found.of_container(&[bind(node.volume("cache"))]).unwrap().is_empty());
    }

    #[test]
    fn every_mount_of_one_has_the_same_source() {
        let node = Node::new(EmptyDir::Sentry);
        let found = node.find(&[]).unwrap();
        let mounts = [
            node.volume("data"),
            "/srv".into(),
            node.volume("data"),
            node.volume("cache"),
        ]
        .map(bind);
        let kept = found.of_container(&mounts).unwrap();
        let names: Vec<_> = kept.iter().map(|(at, kept)| (*at, kept.name.as_str())).collect();
        assert_eq!(names, [(0, "volume-1"), (2, "volume-1"), (3, "volume-0")]);
        assert!(!kept[&0].in_memory);
        let annotations = found.annotations(Path::new("/m"));
        assert_eq!(annotations["dev.gvisor.spec.mount.volume-1.source"], "/m/volume-1");
        assert_eq!(annotations["dev.gvisor.spec.mount.volume-1.type"], "tmpfs");
        let options = annotations["dev.gvisor.spec.mount.volume-1.options"].as_str().unwrap();
        assert!(options.starts_with("rw,mode=755,uid="), "{options}");
        assert_eq!(
            found.filestores("s"),
            ["cache", "data"].map(|name| node.volume(name).join(".gvisor.filestore.s"))
        );
    }

    #[test]
    fn one_of_which_a_part_is_mounted_stays_the_host_s_or_is_refused() {
        let node = Node::new(EmptyDir::Sentry);
        let whole = || bind(node.volume("data"));
        for part in [
            node.path("volume-subpaths/data/web/0"),
            node.volume("data").join("below"),
        ] {
            let found = node.find(&[]).unwrap();
            found.of_container(&[bind(part.clone())]).unwrap();
            assert!(found.of_container(&[whole()]).unwrap().is_empty(), "{}", part.display());

            let found = node.find(&[]).unwrap();
            assert_eq!(found.of_container(&[whole()]).unwrap().len(), 1);
            let refused = found.of_container(&[bind(part.clone())]).unwrap_err().to_string();
            assert!(refused.starts_with("mounts: /mnt is not supported"), "{refused}");

            let asked = node.find(&[("data.share", "pod"), ("data.type", "tmpfs")]).unwrap();
            assert!(asked.of_container(&[bind(part)]).is_err());
        }
    }

    #[test]
    fn a_volume_may_be_had_in_memory_whatever_its_medium() {
        let node = Node::new(EmptyDir::Host);
        let found = node
            .find(&[("data.share", "container"), ("data.type", "tmpfs")])
            .unwrap();
        assert!(found.filestores("s").is_empty());
        assert!(found.of_container(&[bind(node.volume("data"))]).unwrap()[&0].in_memory);
    }

    #[test]
    fn an_annotation_that_cannot_be_honoured_is_refused_by_name() {
        let node = Node::new(EmptyDir::Sentry);
        let other = node.path("volumes/kubernetes.io~secret/data").display().to_string();
        std::fs::create_dir_all(&other).unwrap();
        let theirs = node.root.path().join("pods/u-2").join(PLUGIN).join("data");
        std::fs::create_dir_all(&theirs).unwrap();
        let theirs = theirs.display().to_string();
        let climbing = format!("{}/../data", node.volume("data").display());
        let asked = [("data.share", "pod"), ("data.type", "bind")];
        let cases: [(&[(&str, &str)], &str); _] = [
            (&[("data.type", "tmpfs")], "data.share is not supported"),
            (&[("data.share", "pod")], "data.type is not supported"),
            (
                &[("data.type", "ext4"), ("data.share", "pod")],
                "data.type is not supported",
            ),
            (
                &[("data.type", "bind"), ("data.share", "all")],
                "data.share is not supported",
            ),
            (&[("data.size", "1")], "data.size is not supported"),
            (&[("data", "1")], "mount.data is not supported"),
            (&[("data.options", "ro")], "data.options is not supported"),
            (
                &[("none.share", "pod"), ("none.type", "bind")],
                "none.type is not supported",
            ),
            (
                &[asked[0], asked[1], ("data.source", "/etc")],
                "data.source is not supported",
            ),
            (
                &[asked[0], asked[1], ("data.source", &other)],
                "data.source is not supported",
            ),
            (
                &[asked[0], asked[1], ("data.source", &theirs)],
                "data.source is not supported",
            ),
            (
                &[asked[0], asked[1], ("data.source", &climbing)],
                "data.source is not supported",
            ),
        ];
        for (annotations, words) in cases {
            let text = node.find(annotations).unwrap_err();
            assert!(text.contains(words), "{annotations:?}: {text}");
        }
        let named = node.volume("data").display().to_string();
        assert_eq!(
            node.sources(&[asked[0], asked[1], ("data.source", &named)]),
            [node.volume("data"), node.volume("cache")]
        );
    }
}
