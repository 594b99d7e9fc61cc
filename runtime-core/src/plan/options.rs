//! mount(8)'s options, one by one.
//!
//! The kernel's fd-based interface tells apart what mount(2) mixed: attributes of one mount (`mount_setattr`), flags of
//! the superblock behind it, parameters of the file system (both `fsconfig`), and propagation.

use std::fmt::Display;

use super::{Error, Mount};

// struct mount_attr, see mount_setattr(2).
/// Read-only.
pub const MOUNT_ATTR_RDONLY: u64 = 0x0000_0001;
/// Set-user-ID and file capabilities do nothing.
pub const MOUNT_ATTR_NOSUID: u64 = 0x0000_0002;
/// Device nodes do nothing.
pub const MOUNT_ATTR_NODEV: u64 = 0x0000_0004;
/// Nothing is executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x0000_0008;
/// Not bits but one number: how access times are kept. Whoever sets it has to clear all of it.
pub const MOUNT_ATTR_ATIME: u64 = 0x0000_0070;
/// Access times are kept as the kernel does by default.
pub const MOUNT_ATTR_RELATIME: u64 = 0x0000_0000;
/// Access times are not kept.
pub const MOUNT_ATTR_NOATIME: u64 = 0x0000_0010;
/// Access times are kept exactly.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x0000_0020;
/// Access times of directories are not kept.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x0000_0080;
/// Symbolic links are not followed.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// What one option does.
#[derive(Clone, Copy)]
enum Effect {
    /// Sets an attribute.
    Set(u64),
    /// Clears one.
    Clear(u64),
    /// Chooses how access times are kept.
    Atime(u64),
    /// MS_* flags of a change of propagation.
    Propagation(u64),
    /// Sets a flag of the superblock, by the kernel's name.
    Superblock(&'static str),
    /// Takes it back.
    NoSuperblock(&'static str),
    Bind,
    RecursiveBind,
    CopyUp,
    IdMap,
    RecursiveIdMap,
    /// Says what is so anyway.
    Nothing,
    /// Known, and not to be had.
    Refused(&'static str),
}

use Effect::*;

/// Options of one mount alone; each attribute with `r` before it is the same for everything below too.
const ATTRIBUTES: [(&str, Effect); 17] = [
    ("ro", Set(MOUNT_ATTR_RDONLY)),
    ("rw", Clear(MOUNT_ATTR_RDONLY)),
    ("nosuid", Set(MOUNT_ATTR_NOSUID)),
    ("suid", Clear(MOUNT_ATTR_NOSUID)),
    ("nodev", Set(MOUNT_ATTR_NODEV)),
    ("dev", Clear(MOUNT_ATTR_NODEV)),
    ("noexec", Set(MOUNT_ATTR_NOEXEC)),
    ("exec", Clear(MOUNT_ATTR_NOEXEC)),
    ("relatime", Atime(MOUNT_ATTR_RELATIME)),
    ("noatime", Atime(MOUNT_ATTR_NOATIME)),
    ("strictatime", Atime(MOUNT_ATTR_STRICTATIME)),
    // The kernel's default is what is left when one of the others is taken back.
    ("atime", Atime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Atime(MOUNT_ATTR_RELATIME)),
    ("nodiratime", Set(MOUNT_ATTR_NODIRATIME)),
    ("diratime", Clear(MOUNT_ATTR_NODIRATIME)),
    ("nosymfollow", Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("symfollow", Clear(MOUNT_ATTR_NOSYMFOLLOW)),
];

const OTHERS: [(&str, Effect); 30] = [
    ("bind", Bind),
    ("rbind", RecursiveBind),
    ("private", Propagation(libc::MS_PRIVATE)),
    ("rprivate", Propagation(libc::MS_PRIVATE | libc::MS_REC)),
    ("slave", Propagation(libc::MS_SLAVE)),
    ("rslave", Propagation(libc::MS_SLAVE | libc::MS_REC)),
    ("shared", Propagation(libc::MS_SHARED)),
    ("rshared", Propagation(libc::MS_SHARED | libc::MS_REC)),
    ("unbindable", Propagation(libc::MS_UNBINDABLE)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE | libc::MS_REC)),
    ("sync", Superblock("sync")),
    ("async", NoSuperblock("sync")),
    ("dirsync", Superblock("dirsync")),
    ("lazytime", Superblock("lazytime")),
    ("nolazytime", NoSuperblock("lazytime")),
    ("mand", Superblock("mand")),
    ("nomand", NoSuperblock("mand")),
    ("tmpcopyup", CopyUp),
    ("idmap", IdMap),
    ("ridmap", RecursiveIdMap),
    ("defaults", Nothing),
    ("norelatime", Nothing),
    ("rnorelatime", Nothing),
    // Whether the kernel logs: with the fd-based interface it answers the caller instead.
    ("silent", Nothing),
    ("loud", Nothing),
    ("noiversion", Nothing),
    (
        "iversion",
        Refused("the kernel no longer takes it as a mount option; leave it out"),
    ),
    (
        "remount",
        Refused("there is nothing to be mounted again in a new container; leave it out"),
    ),
    ("move", Refused("a mount cannot be taken away from the host; use bind")),
    ("nofail", Refused("a mount that fails is an error; leave it out")),
];

/// Every option that is honoured, as `features` reports them.
pub fn known() -> impl Iterator<Item = String> {
    let honoured = |effect: &Effect| !matches!(effect, Refused(_));
    let own = ATTRIBUTES
        .iter()
        .chain(&OTHERS)
        .filter(move |(_, effect)| honoured(effect))
        .map(|(name, _)| (*name).into());
    own.chain(ATTRIBUTES.iter().map(|(name, _)| format!("r{name}")))
}

/// Whether it is a bind, and with what is mounted below the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    Bind,
    Recursive,
}

/// Applies `options` to `mount`, in order: of two that contradict each other the last one counts. What no option is
/// known for is left to the file system, in `mount.data`.
pub(super) fn apply<'a>(
    field: &dyn Display,
    options: impl Iterator<Item = &'a str>,
    mount: &mut Mount,
) -> Result<Option<Binding>, Error> {
    let mut binding = None;
    for option in options {
        if option.is_empty() {
            continue;
        }
        if option.contains('\0') {
            return Err(Error::invalid(field, option, "has a NUL in it"));
        }
        if let Some((_, effect)) = ATTRIBUTES.iter().find(|(name, _)| *name == option) {
            attribute(*effect, &mut mount.set, &mut mount.clear);
            continue;
        }
        let recursive = option
            .strip_prefix('r')
            .and_then(|rest| ATTRIBUTES.iter().find(|(name, _)| *name == rest));
        if let Some((_, effect)) = recursive {
            attribute(*effect, &mut mount.recursive_set, &mut mount.recursive_clear);
            continue;
        }
        match OTHERS
            .iter()
            .find(|(name, _)| *name == option)
            .map(|(_, effect)| *effect)
        {
            Some(Bind) => binding = binding.or(Some(Binding::Bind)),
            Some(RecursiveBind) => binding = Some(Binding::Recursive),
            Some(Propagation(flags)) => mount.propagation.push(flags),
            Some(Superblock(name)) if !mount.superblock.iter().any(|set| set == name) => {
                mount.superblock.push(name.into())
            }
            Some(NoSuperblock(name)) => mount.superblock.retain(|set| set != name),
            Some(CopyUp) => mount.copy_up = true,
            Some(IdMap) => mount.idmap.get_or_insert_default().recursive = false,
            Some(RecursiveIdMap) => mount.idmap.get_or_insert_default().recursive = true,
            Some(Refused(advice)) => return Err(Error::unsupported(format!("{field}: the option {option:?}"), advice)),
            Some(_) => {}
            None if option.starts_with("X-mount.") => {
                let advice = "it is mount(8)'s own; leave it out";
                return Err(Error::unsupported(format!("{field}: the option {option:?}"), advice));
            }
            // Notes of user-space programs to themselves: mount(8).
            None if option.starts_with("x-") || option.starts_with("X-") => {}
            None => mount.data.push(option.into()),
        }
    }
    Ok(binding)
}

fn attribute(effect: Effect, set: &mut u64, clear: &mut u64) {
    match effect {
        Set(bit) => {
            *set |= bit;
            *clear &= !bit;
        }
        Clear(bit) => {
            *set &= !bit;
            *clear |= bit;
        }
        Atime(mode) => {
            *set = *set & !MOUNT_ATTR_ATIME | mode;
            *clear |= MOUNT_ATTR_ATIME;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &[&str]) -> (Mount, Option<Binding>) {
        let mut mount = Mount::default();
        let binding = apply(&"mounts[0].options", options.iter().copied(), &mut mount).unwrap();
        (mount, binding)
    }

    #[test]
    fn of_two_options_that_contradict_each_other_the_last_one_counts() {
        let (mount, _) = applied(&["ro", "nosuid", "rw"]);
        assert_eq!((mount.set, mount.clear), (MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY));
        let (mount, _) = applied(&["rw", "ro"]);
        assert_eq!((mount.set, mount.clear), (MOUNT_ATTR_RDONLY, 0));
        let (mount, _) = applied(&["sync", "dirsync", "async"]);
        assert_eq!(mount.superblock, ["dirsync"]);
    }

    #[test]
    fn access_time_modes_always_clear_the_whole_field() {
        for (option, mode) in [
            ("noatime", 0x10),
            ("strictatime", 0x20),
            ("relatime", 0),
            ("atime", 0),
            ("nostrictatime", 0),
        ] {
            let (mount, _) = applied(&["noatime", option]);
            assert_eq!((mount.set, mount.clear), (mode, MOUNT_ATTR_ATIME), "{option}");
            let (mount, _) = applied(&[&format!("r{option}")]);
            assert_eq!(
                (mount.recursive_set, mount.recursive_clear),
                (mode, MOUNT_ATTR_ATIME),
                "r{option}"
            );
        }
    }

    #[test]
    fn recursive_options_are_kept_apart_from_the_mounts_own() {
        let (mount, binding) = applied(&["rbind", "rro", "nodev", "rsuid", "rprivate", "shared"]);
        assert_eq!(binding, Some(Binding::Recursive));
        assert_eq!((mount.set, mount.clear), (MOUNT_ATTR_NODEV, 0));
        assert_eq!(
            (mount.recursive_set, mount.recursive_clear),
            (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID)
        );
        assert_eq!(mount.propagation, [libc::MS_PRIVATE | libc::MS_REC, libc::MS_SHARED]);
    }

    #[test]
    fn what_is_not_known_is_the_file_systems_and_notes_are_nobodys() {
        let (mount, _) = applied(&[
            "size=64k",
            "defaults",
            "x-note=1",
            "",
            "mode=755",
            "X-containerd.mkfs.fs=ext4",
        ]);
        assert_eq!(mount.data, ["size=64k", "mode=755"]);
        assert_eq!((mount.set, mount.clear), (0, 0));
    }

    #[test]
    fn remount_is_refused_by_name() {
        let error = apply(&"mounts[2].options", ["remount"].into_iter(), &mut Mount::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(r#"mounts[2].options: the option "remount" is not supported: "#),
            "{error}"
        );
    }

    #[test]
    fn every_option_that_is_reported_does_something_or_is_known_to_do_nothing() {
        let mut seen = std::collections::HashSet::new();
        for option in known() {
            assert!(seen.insert(option.clone()), "{option} is there twice");
            let (mount, _) = applied(&[&option]);
            assert!(mount.data.is_empty(), "{option}");
        }
        for option in [
            "ro",
            "rro",
            "rrw",
            "rnosymfollow",
            "idmap",
            "ridmap",
            "tmpcopyup",
            "rbind",
            "rshared",
            "lazytime",
        ] {
            assert!(seen.contains(option), "{option}");
        }
        assert!(!seen.contains("remount"));
    }
}
