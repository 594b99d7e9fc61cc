//! Detached mounts: new file systems through fsopen, host paths through open_tree.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, XattrFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::{Error, is_new};
use crate::plan::{Mount, MountSource};
use crate::policy::gives_away;
use crate::sys::mount::{MOUNT_ATTR_IDMAP, MOUNT_ATTR_RDONLY, MountAttr, set_attributes};

/// Longest value of an option that fsconfig(2) takes.
pub const MAX_VALUE: usize = 255;

/// A detached mount of a new file system, with the mount's attributes set. tmpfs stays writable: what is mounted below
/// it needs its mount points; see [`is_late_readonly`].
pub fn open(mount: &Mount) -> Result<OwnedFd, Error> {
    open_for(mount, None)
}

/// A detached mount of a new proc that shows `pid_namespace`, not its maker's own (Linux 6.17).
pub fn open_proc(mount: &Mount, pid_namespace: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    open_for(mount, Some(pid_namespace))
}

fn open_for(mount: &Mount, pid_namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let MountSource::New { kind, source } = &mount.source else {
        return Err(Error::Filesystem {
            kind: "none".into(),
            destination: mount.destination.clone(),
            what: "not a new file system".into(),
            log: String::new(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        });
    };
    let failed = |what: String, log: String, errno: rustix::io::Errno| Error::Filesystem {
        kind: kind.clone(),
        destination: mount.destination.clone(),
        what,
        log,
        source: errno.into(),
    };
    let context = fsopen(kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| failed("the kernel does not know it".into(), String::new(), errno))?;
    let option = |text: &str, result: rustix::io::Result<()>| {
        result.map_err(|errno| failed(format!("option {text:?}"), log(context.as_fd()), errno))
    };
    if !source.is_empty() {
        option(
            "source",
            fsconfig_set_string(context.as_fd(), "source", source.as_str()),
        )?;
    }
    for flag in &mount.superblock {
        option(flag, fsconfig_set_flag(context.as_fd(), flag.as_str()))?;
    }
    if let Some(namespace) = pid_namespace {
        option("pidns", fsconfig_set_fd(context.as_fd(), "pidns", namespace))?;
    }
    let mut own_label = None;
    for text in &mount.data {
        match text.split_once('=') {
            // fsconfig(2) takes 255 bytes a value; one layer at a time there is no such limit (Linux 6.5).
            Some(("lowerdir", layers)) if kind == "overlay" && layers.len() > MAX_VALUE => {
                for layer in split_layers(layers) {
                    option(text, fsconfig_set_string(context.as_fd(), "lowerdir+", layer))?;
                }
            }
            // One superblock for everybody in the IPC namespace: the label is its root's, not the mount's.
            Some(("context", label)) if kind == "mqueue" => own_label = Some(label),
            Some((key, value)) => option(text, fsconfig_set_string(context.as_fd(), key, value))?,
            None => option(text, fsconfig_set_flag(context.as_fd(), text.as_str()))?,
        }
    }
    fsconfig_create(context.as_fd())
        .map_err(|errno| failed("the kernel refuses it".into(), log(context.as_fd()), errno))?;
    let mut attributes = mount.set & !MOUNT_ATTR_IDMAP;
    if is_late_readonly(mount) {
        attributes &= !MOUNT_ATTR_RDONLY;
    }
    let made = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes as u32),
    )
    .map_err(|errno| failed(format!("attributes {attributes:#x}"), log(context.as_fd()), errno))?;
    if let Some(label) = own_label {
        let path = format!("/proc/self/fd/{}", made.as_raw_fd());
        rustix::fs::setxattr(path, "security.selinux", label.as_bytes(), XattrFlags::empty())
            .map_err(|errno| failed(format!("the label {label:?}"), String::new(), errno))?;
    }
    Ok(made)
}

/// Whether the mount is made read-only at the very end.
pub fn is_late_readonly(mount: &Mount) -> bool {
    mount.set & MOUNT_ATTR_RDONLY != 0 && is_new(mount, "tmpfs")
}

/// overlay's `lowerdir` (Documentation/filesystems/overlayfs.rst): layers separated by `:`, a backslash escapes.
pub fn split_layers(text: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => layers.push(String::new()),
            '\\' => layers
                .last_mut()
                .into_iter()
                .for_each(|layer| layer.extend(characters.next())),
            other => layers.last_mut().into_iter().for_each(|layer| layer.push(other)),
        }
    }
    layers
}

/// What the kernel has to say about a file system context: its messages, each after a letter for its weight.
fn log(context: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut bytes) {
        text.push_str(if text.is_empty() { " (" } else { "; " });
        text.push_str(String::from_utf8_lossy(&bytes[..length]).trim_end());
    }
    if !text.is_empty() {
        text.push(')');
    }
    text
}

/// A detached clone of what is at `path` on the host (relative to `bundle`), with the mount's attributes set.
pub fn clone_host(mount: &Mount, path: &Path, recursive: bool, bundle: &Path) -> Result<OwnedFd, Error> {
    let path = bundle.join(path);
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let fd = open_tree(CWD, &path, flags).map_err(|errno| Error::Source {
        path: path.clone(),
        destination: mount.destination.clone(),
        source: errno.into(),
    })?;
    set_mount_attributes(&fd, mount)?;
    Ok(fd)
}

/// A detached clone of the attached mount, or directory in one, that `handle` refers to.
pub fn clone_handle(handle: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(handle, c"", flags)?)
}

/// The mount's own attributes, then those for everything below it too.
pub fn set_mount_attributes(fd: &OwnedFd, mount: &Mount) -> Result<(), Error> {
    for (recursive, set, clear) in [
        (false, mount.set, mount.clear),
        (true, mount.recursive_set, mount.recursive_clear),
    ] {
        if set | clear == 0 {
            continue;
        }
        set_attributes(
            fd,
            recursive,
            MountAttr {
                set,
                clear,
                ..MountAttr::default()
            },
        )
        .map_err(|source| Error::Attributes {
            destination: mount.destination.clone(),
            set,
            clear,
            source,
        })?;
    }
    Ok(())
}

/// The same of what `source`, opened already, refers to.
fn clone_opened(mount: &Mount, source: &OwnedFd, path: &Path, recursive: bool) -> Result<OwnedFd, Error> {
    let fd = clone_handle(source.as_fd(), recursive).map_err(|error| Error::Source {
        path: path.to_owned(),
        destination: mount.destination.clone(),
        source: error,
    })?;
    set_mount_attributes(&fd, mount)?;
    Ok(fd)
}

/// [`clone_host`], unless the links of `path` lead to what gives the host away: what is looked at is what is cloned.
pub fn clone_host_unless_given_away(
    mount: &Mount,
    path: &Path,
    recursive: bool,
    bundle: &Path,
) -> Result<OwnedFd, Error> {
    let path = bundle.join(path);
    let failed = |source| Error::Source {
        path: path.clone(),
        destination: mount.destination.clone(),
        source,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let real = std::fs::read_link(link).map_err(failed)?;
    match gives_away(&real) {
        Some(what) => Err(Error::HostPath {
            path: path.clone(),
            destination: mount.destination.clone(),
            real,
            what,
        }),
        None => clone_opened(mount, &opened, &path, recursive),
    }
}

/// Changes propagation: `flags` is one of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, perhaps with MS_REC.
pub fn set_propagation(fd: impl AsFd, destination: &str, flags: u64) -> Result<(), Error> {
    let recursive = flags & libc::MS_REC != 0;
    let propagation = flags & !libc::MS_REC;
    set_attributes(
        fd,
        recursive,
        MountAttr {
            propagation,
            ..MountAttr::default()
        },
    )
    .map_err(|source| Error::Propagation {
        destination: destination.to_owned(),
        flags,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::split_layers;

    #[test]
    fn lower_layers_are_split_at_colons_that_no_backslash_escapes() {
        assert_eq!(split_layers("/a:/b"), ["/a", "/b"]);
        assert_eq!(split_layers(r"/a\:b:/c\\d"), ["/a:b", r"/c\d"]);
        assert_eq!(split_layers("/only"), ["/only"]);
    }
}
