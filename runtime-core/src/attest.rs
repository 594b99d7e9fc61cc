//! Attested images and volumes: a digest over what a container's root file system, or a volume of it, is made of,
//! compared before anything of it runs.
//!
//! A tree of hashes (SHA-256) over the image's layers: names, kinds, modes, owners, device numbers, links, what files
//! have in them, and the extended attributes that mean something in an image. Not times, nor what a node adds for
//! itself, such as SELinux's labels: the digest of an image is the same on every node. Nothing is followed, and nothing
//! is written.
//!
//! It is computed anew each time. A digest that was kept by layer would have to be forgotten when anything below the
//! layer's directory changes, and nothing tells of that: a directory's times do not say what was written to a file
//! somewhere in it, and whoever can write to a layer on the node, against whom the digest stands, can set the times of
//! files and of the machine. Nor are fs-verity's digests used: what they cover depends on how a file system was made,
//! so that of two nodes one would have to compute another's way of hashing, for each file, to come to the same digest.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::plan::{Mount, MountSource, Plan};

/// Why a root file system is not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("rootfs_digest: the image's layers have sha256:{found}, and sha256:{expected} is demanded")]
    Differs { found: String, expected: String },
    #[error(
        "rootfs_digest: the root file system is no overlay of layers; only such can be told from what a container has \
         written"
    )]
    NoLayers,
    #[error("computing a digest: reading {path:?}")]
    Io { path: PathBuf, source: io::Error },
    #[error("computing a digest: {path:?} is neither a file nor a directory")]
    Kind { path: PathBuf },
}

/// Part of every digest: another way to compute it gets another one.
const FORM: &[u8] = b"nucleus rootfs 1\0";

/// Deeper trees are refused: each level holds an fd.
const MAX_DEPTH: usize = 512;

/// The extended attributes that come with an image.
pub(crate) const ATTRIBUTES: [&str; 3] = ["security.capability", "trusted.overlay.opaque", "user.overlay.opaque"];

type Hash = [u8; 32];

/// Compares the layers of the plan's root file system with the digest that the policy demands, if it demands one.
pub fn check(plan: &Plan) -> Result<(), Error> {
    let Some(expected) = &plan.policy.rootfs_digest.value.0 else {
        return Ok(());
    };
    let layers = layers(&plan.container.rootfs.mounts).ok_or(Error::NoLayers)?;
    let found = digest(&layers)?;
    if found == *expected {
        return Ok(());
    }
    Err(Error::Differs {
        found,
        expected: expected.clone(),
    })
}

/// The lower directories of an overlay that is all there is of the root file system.
fn layers(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    let MountSource::New { kind, .. } = &mount.source else {
        return None;
    };
    let lower = mount.data.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
    (kind == "overlay").then(|| {
        crate::mounts::overlay_layers(lower)
            .into_iter()
            .map(PathBuf::from)
            .collect()
    })
}

/// The digest of an image of these layers, the topmost first: 64 hex digits.
pub fn digest(layers: &[PathBuf]) -> Result<String, Error> {
    let mut hashes = Vec::new();
    for layer in layers {
        let failed = |source| Error::Io {
            path: layer.clone(),
            source,
        };
        let root = rustix::fs::open(layer, DIRECTORY, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        hashes.push(directory(root, layer, 0)?);
    }
    Ok(written(&hashes))
}

/// The digest of a volume, or of a single file that is mounted: as that of an image of one layer, 64 hex digits. What
/// kubelet writes as links into a directory that it exchanges counts as that directory ([`published`]).
pub fn volume(path: &Path) -> Result<String, Error> {
    let failed = |errno: rustix::io::Errno| Error::Io {
        path: path.to_owned(),
        source: errno.into(),
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let published = published(opened.as_fd()).map_err(failed)?;
    of(published.unwrap_or(opened), path)
}

/// The same of an opened file or directory, as it is; `path` is what errors call it.
pub(crate) fn of(opened: OwnedFd, path: &Path) -> Result<String, Error> {
    let stat = rustix::fs::fstat(&opened).map_err(|errno| Error::Io {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let hash = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => directory(opened, path, 0)?,
        FileType::RegularFile => file(opened, path)?,
        _ => return Err(Error::Kind { path: path.to_owned() }),
    };
    Ok(written(&[hash]))
}

/// The directory that holds the files of a ConfigMap's, a Secret's or a projected volume: kubelet links each to
/// `..data`, and that to a directory whose name is the time. None where `volume` is no such.
pub(crate) fn published(volume: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    let target = match rustix::fs::readlinkat(volume, c"..data", Vec::new()) {
        Ok(target) => target,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::INVAL) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let name = target.to_bytes();
    if !name.starts_with(b"..") || name.len() == 2 || name.contains(&b'/') {
        return Ok(None);
    }
    rustix::fs::openat(volume, target, DIRECTORY, Mode::empty()).map(Some)
}

fn written(hashes: &[Hash]) -> String {
    let mut whole = Sha256::new_with_prefix(FORM);
    for hash in hashes {
        whole.update(hash);
    }
    whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory's own properties, then name and hash of each entry, in the order of the names' bytes.
fn directory(opened: OwnedFd, path: &Path, depth: usize) -> Result<Hash, Error> {
    let failed = |errno: rustix::io::Errno| Error::Io {
        path: path.to_owned(),
        source: errno.into(),
    };
    if depth == MAX_DEPTH {
        return Err(failed(rustix::io::Errno::LOOP));
    }
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(&opened).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut hash = properties(&rustix::fs::fstat(&opened).map_err(failed)?);
    attributes(&mut hash, opened.as_fd()).map_err(failed)?;
    for name in names {
        let text = String::from_utf8_lossy(name.to_bytes());
        part(&mut hash, name.to_bytes());
        hash.update(entry(opened.as_fd(), &name, &path.join(&*text), depth)?);
    }
    Ok(hash.finalize().into())
}

fn entry(parent: BorrowedFd<'_>, name: &CString, path: &Path, depth: usize) -> Result<Hash, Error> {
    let failed = |errno: rustix::io::Errno| Error::Io {
        path: path.to_owned(),
        source: errno.into(),
    };
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let opened = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).map_err(failed)?;
            directory(opened, path, depth + 1)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            file(
                rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?,
                path,
            )
        }
        FileType::Symlink => {
            let mut hash = properties(&stat);
            part(
                &mut hash,
                rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(failed)?
                    .to_bytes(),
            );
            Ok(hash.finalize().into())
        }
        // A node, whiteouts among them: its numbers say all.
        _ => Ok(properties(&stat).finalize().into()),
    }
}

fn file(opened: OwnedFd, path: &Path) -> Result<Hash, Error> {
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
    let mut hash = properties(&stat);
    attributes(&mut hash, opened.as_fd()).map_err(|errno| failed(errno.into()))?;
    content(&mut hash, File::from(opened)).map_err(failed)?;
    Ok(hash.finalize().into())
}

/// Kind, mode, owner, and for nodes which one.
fn properties(stat: &rustix::fs::Stat) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(stat.st_mode.to_le_bytes());
    hash.update(stat.st_uid.to_le_bytes());
    hash.update(stat.st_gid.to_le_bytes());
    let is_node = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
    hash.update(if is_node { stat.st_rdev } else { 0 }.to_le_bytes());
    hash
}

fn attributes(hash: &mut Sha256, file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    for name in ATTRIBUTES {
        let mut value = [0; 256];
        match rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            Ok(length) => {
                part(hash, name.as_bytes());
                part(hash, &value[..length]);
            }
            // Not there; or no file system that has any.
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    // Where attributes end, a file's content or a directory's entries begin.
    part(hash, b"");
    Ok(())
}

fn content(hash: &mut Sha256, mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// With its length in front: two parts are never one longer one.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn image() -> tempfile::TempDir {
        let layer = tempfile::tempdir().unwrap();
        std::fs::create_dir(layer.path().join("bin")).unwrap();
        std::fs::write(layer.path().join("bin/sh"), "a shell").unwrap();
        symlink("sh", layer.path().join("bin/ash")).unwrap();
        layer
    }

    fn digest_of(layer: &tempfile::TempDir) -> String {
        digest(&[layer.path().to_owned()]).unwrap()
    }

    #[test]
    fn the_same_tree_has_the_same_digest_wherever_and_whenever_it_was_made() {
        let (one, other) = (image(), image());
        let old = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::open(other.path().join("bin/sh"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert_eq!(digest_of(&one), digest_of(&other));
        assert_eq!(digest_of(&one).len(), 64);
    }

    #[test]
    fn a_volume_has_the_digest_of_an_image_of_one_layer_and_of_kubelet_s_links_only_the_files_count() {
        let plain = image();
        assert_eq!(volume(plain.path()).unwrap(), digest_of(&plain));
        let published = |version: &str| {
            let volume = tempfile::tempdir().unwrap();
            let version = format!("..{version}");
            std::fs::create_dir(volume.path().join(&version)).unwrap();
            std::fs::write(volume.path().join(&version).join("key"), "value").unwrap();
            symlink(&version, volume.path().join("..data")).unwrap();
            symlink("..data/key", volume.path().join("key")).unwrap();
            volume
        };
        let (one, other) = (published("2026_01"), published("2027_02"));
        assert_eq!(volume(one.path()).unwrap(), volume(other.path()).unwrap());
        assert_eq!(volume(&one.path().join("..data")).unwrap(), volume(one.path()).unwrap());
        std::fs::write(one.path().join("..data/key"), "other").unwrap();
        assert_ne!(volume(one.path()).unwrap(), volume(other.path()).unwrap());
        // A link that leads out of the volume is a link.
        let outside = tempfile::tempdir().unwrap();
        symlink("../../etc", outside.path().join("..data")).unwrap();
        assert!(
            super::published(File::open(outside.path()).unwrap().as_fd())
                .unwrap()
                .is_none()
        );
        let file = plain.path().join("bin/sh");
        assert_ne!(volume(&file).unwrap(), volume(plain.path()).unwrap());
    }

    #[test]
    fn whatever_an_image_is_made_of_changes_its_digest() {
        let changes: [fn(&Path); 6] = [
            |root| std::fs::write(root.join("bin/sh"), "b shell").unwrap(),
            |root| std::fs::set_permissions(root.join("bin/sh"), std::fs::Permissions::from_mode(0o4755)).unwrap(),
            |root| std::fs::rename(root.join("bin/sh"), root.join("bin/sh2")).unwrap(),
            |root| std::fs::write(root.join("new"), "").unwrap(),
            |root| {
                std::fs::remove_file(root.join("bin/ash")).unwrap();
                symlink("/bin/sh", root.join("bin/ash")).unwrap();
            },
            |root| {
                std::fs::remove_file(root.join("bin/ash")).unwrap();
                std::fs::write(root.join("bin/ash"), "sh").unwrap();
            },
        ];
        let mut seen = std::collections::BTreeSet::from([digest_of(&image())]);
        for change in changes {
            let image = image();
            change(image.path());
            assert!(seen.insert(digest_of(&image)));
        }
        let (one, other) = (image(), tempfile::tempdir().unwrap());
        let [one, other] = [one.path().to_owned(), other.path().to_owned()];
        assert_ne!(
            digest(&[one.clone(), other.clone()]).unwrap(),
            digest(&[other, one]).unwrap(),
            "the order of layers"
        );
    }
}
