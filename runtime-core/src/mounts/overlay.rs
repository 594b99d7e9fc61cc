//! overlayfs where it takes a mount namespace of its own for a moment: with many layers on kernels before 6.5, whose
//! fsconfig(2) has no room for them, and with layers whose ids are mapped.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, OpenTreeFlags, open_tree};

use super::filesystem::{self, MAX_VALUE, split_layers};
use super::{Error, idmap};
use crate::plan::{Mount, MountIdMap, MountSource};
use crate::sys::mount::{MountAttr, set_attributes};
use crate::sys::spawn::attach;
use crate::sys::{namespace, user_namespace};

/// Whether this mount is beyond what the kernel's fsconfig(2) can be told.
pub fn needs_old_way(mount: &Mount) -> bool {
    lower(mount).is_some_and(|layers| layers.len() > MAX_VALUE) && !is_at_least(6, 5)
}

fn lower(mount: &Mount) -> Option<&str> {
    let is_overlay = matches!(&mount.source, MountSource::New { kind, .. } if kind == "overlay");
    mount
        .data
        .iter()
        .filter(|_| is_overlay)
        .find_map(|text| text.strip_prefix("lowerdir="))
}

fn is_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// A detached mount made by mount(2) at `place`, an existing directory, in a mount namespace that is left again at
/// once: the host never sees it.
pub fn open_old_way(mount: &Mount, place: &Path) -> Result<OwnedFd, Error> {
    aside(mount, || {
        mount_here(mount, place).map_err(|source| refused(mount, source))
    })
}

/// A detached overlay of layers whose ids are mapped (Linux 5.19). Each lower directory is covered by a mapped clone of
/// itself, in a mount namespace that is left again at once; the upper directory belongs to the mapped users already.
pub fn open_mapped(mount: &Mount, maps: &MountIdMap, place: &Path, proc: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let userns = user_namespace::new(&maps.uid_map, &maps.gid_map, proc)?;
    aside(mount, || {
        for layer in split_layers(lower(mount).unwrap_or_default()) {
            cover(Path::new(&layer), userns.as_fd()).map_err(|source| Error::IdMap {
                destination: layer,
                source,
            })?;
        }
        if needs_old_way(mount) {
            mount_here(mount, place).map_err(|source| refused(mount, source))
        } else {
            filesystem::open(mount)
        }
    })
}

fn cover(layer: &Path, userns: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, layer, flags)?;
    set_attributes(&clone, false, idmap::by(userns))?;
    let target = rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(&clone, target.as_fd())
}

fn refused(mount: &Mount, source: io::Error) -> Error {
    Error::Filesystem {
        kind: "overlay".into(),
        destination: mount.destination.clone(),
        what: "mount(2) refuses it".into(),
        log: String::new(),
        source,
    }
}

/// Does something in a mount namespace of its own from which nothing gets out but fds.
fn aside(mount: &Mount, work: impl FnOnce() -> Result<OwnedFd, Error>) -> Result<OwnedFd, Error> {
    let (home, directory) = leave().map_err(|source| refused(mount, source))?;
    let made = work();
    // Back first: the rest of the set-up must not run in a namespace that is about to end.
    let back = namespace::enter(&home, libc::CLONE_NEWNS).and_then(|()| Ok(rustix::process::fchdir(&directory)?));
    back.map_err(|source| refused(mount, source))?;
    made
}

/// Enters a mount namespace of our own, of which nothing reaches another. Returns the one and the directory to come
/// back to.
pub(super) fn leave() -> io::Result<(OwnedFd, OwnedFd)> {
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let home = rustix::fs::open(c"/proc/self/ns/mnt", read, Mode::empty())?;
    let directory = rustix::fs::open(c".", read | OFlags::DIRECTORY, Mode::empty())?;
    namespace::unshare(libc::CLONE_NEWNS)?;
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    set_attributes(&root, true, private)?;
    Ok((home, directory))
}

fn mount_here(mount: &Mount, place: &Path) -> io::Result<OwnedFd> {
    let (base, data) = short_options(mount);
    // The option string has a page at most: layers are named from the directory that they share.
    rustix::process::chdir(&base)?;
    let data = CString::new(data)?;
    rustix::mount::mount(c"overlay", place, c"overlay", MountFlags::empty(), data.as_c_str())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, place, flags)?;
    set_attributes(
        &clone,
        false,
        MountAttr {
            set: mount.set,
            ..MountAttr::default()
        },
    )?;
    Ok(clone)
}

/// The options as one string with the lower layers relative to the directory that is returned first.
fn short_options(mount: &Mount) -> (PathBuf, String) {
    let layers = split_layers(lower(mount).unwrap_or_default());
    let base = layers
        .iter()
        .filter_map(|layer| Path::new(layer).parent())
        .reduce(common)
        .unwrap_or(Path::new("/"))
        .to_owned();
    let relative: Vec<String> = layers
        .iter()
        .map(|layer| {
            let short = Path::new(layer).strip_prefix(&base).unwrap_or(Path::new(layer));
            short.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
        })
        .collect();
    let lower = format!("lowerdir={}", relative.join(":"));
    let others = mount.data.iter().filter(|text| !text.starts_with("lowerdir=")).cloned();
    (
        base,
        others
            .chain(mount.superblock.iter().cloned())
            .chain([lower])
            .collect::<Vec<_>>()
            .join(","),
    )
}

fn common<'a>(one: &'a Path, other: &'a Path) -> &'a Path {
    one.ancestors()
        .find(|ancestor| other.starts_with(ancestor))
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(data: &[&str]) -> Mount {
        Mount {
            destination: "/".into(),
            source: MountSource::New {
                kind: "overlay".into(),
                source: "overlay".into(),
            },
            data: data.iter().map(|text| (*text).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn layers_are_named_from_the_directory_that_they_share() {
        let mount = overlay(&[
            "index=off",
            "workdir=/s/9/work",
            "upperdir=/s/9/fs",
            r"lowerdir=/s/1/fs:/s/2/f\:s",
        ]);
        let (base, data) = short_options(&mount);
        assert_eq!(base, Path::new("/s"));
        assert_eq!(
            data,
            r"index=off,workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=1/fs:2/f\:s"
        );
    }

    #[test]
    #[ignore = "needs root"]
    fn sixty_layers_are_mounted_in_one_string_and_the_host_sees_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let layers: Vec<String> = (0..60)
            .map(|n| base.join(format!("layer-{n}/fs")).display().to_string())
            .collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir_all(layer).unwrap();
            std::fs::write(format!("{layer}/file-{n}"), b"x").unwrap();
        }
        let place = base.join("rootfs");
        std::fs::create_dir(&place).unwrap();
        let mount = overlay(&[&format!("lowerdir={}", layers.join(":"))]);
        let at = place.clone();
        let layers_seen = std::thread::spawn(move || {
            // setns(2) into a mount namespace wants a thread whose root and cwd are its own.
            namespace::unshare(libc::CLONE_FS).unwrap();
            let fd = open_old_way(&mount, &at).unwrap();
            ["file-0", "file-59"].map(|name| rustix::fs::statat(&fd, name, rustix::fs::AtFlags::empty()).is_ok())
        });
        assert_eq!(layers_seen.join().unwrap(), [true, true]);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(place.to_str().unwrap()));
    }
}
