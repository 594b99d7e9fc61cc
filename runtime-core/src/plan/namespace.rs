//! Namespaces, id maps, clock offsets.

use std::fmt::Display;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Kind};

use super::error::Entry;
use super::{Error, IdMap, Namespace, Namespaces, path};

/// Lines of a map: the kernel's limit since 4.15, see user_namespaces(7).
const MAP_LINES: usize = 340;

/// `linux.namespaces`, `uidMappings`, `gidMappings` and `timeOffsets`.
pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces::default();
    for (index, given) in linux.namespaces().iter().flatten().enumerate() {
        let (slot, name) = slot(&mut namespaces, given.typ());
        if *slot != Namespace::Host {
            return Err(Error::duplicate(format!("linux.namespaces[{index}].type"), name));
        }
        // Go writes a path that is not there as an empty one.
        *slot = match given.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => Namespace::New,
            Some(joined) => {
                let field = Entry {
                    list: "linux.namespaces",
                    index,
                }
                .field("path");
                path::check_absolute(&field, path::text(&field, joined)?)?;
                Namespace::Path(joined.clone())
            }
        };
    }
    if namespaces.mount == Namespace::Host {
        // Everything is mounted inside the container's own mount namespace, never on the host.
        return Err(Error::Missing {
            field: "linux.namespaces: an entry of type mount".into(),
        });
    }
    namespaces.uid_map = id_map(&"linux.uidMappings", linux.uid_mappings())?;
    namespaces.gid_map = id_map(&"linux.gidMappings", linux.gid_mappings())?;
    check_maps(&namespaces)?;
    namespaces.time_offsets = time_offsets(linux, &namespaces)?;
    Ok(namespaces)
}

fn slot(namespaces: &mut Namespaces, kind: Kind) -> (&mut Namespace, &'static str) {
    match kind {
        Kind::User => (&mut namespaces.user, "user"),
        Kind::Mount => (&mut namespaces.mount, "mount"),
        Kind::Pid => (&mut namespaces.pid, "pid"),
        Kind::Network => (&mut namespaces.net, "network"),
        Kind::Ipc => (&mut namespaces.ipc, "ipc"),
        Kind::Uts => (&mut namespaces.uts, "uts"),
        Kind::Cgroup => (&mut namespaces.cgroup, "cgroup"),
        Kind::Time => (&mut namespaces.time, "time"),
    }
}

/// One map: what user_namespaces(7) demands of it, so that the error names the line and not only EINVAL.
pub(super) fn id_map(field: &dyn Display, lines: &Option<Vec<LinuxIdMapping>>) -> Result<Vec<IdMap>, Error> {
    let lines = lines.as_deref().unwrap_or_default();
    let map = lines.iter().map(|line| IdMap {
        container: line.container_id(),
        host: line.host_id(),
        size: line.size(),
    });
    let map: Vec<IdMap> = map.collect();
    check_map(field, &map)?;
    Ok(map)
}

/// The rules of one map's lines among themselves.
pub(super) fn check_map(field: &dyn Display, map: &[IdMap]) -> Result<(), Error> {
    if map.len() > MAP_LINES {
        return Err(Error::number(
            field,
            map.len(),
            "lines are more than the 340 that the kernel takes",
        ));
    }
    let show = |line: &IdMap| format!("{} {} {}", line.container, line.host, line.size);
    let fits = |first: u32, size: u32| u64::from(first) + u64::from(size) <= u64::from(u32::MAX);
    for (index, line) in map.iter().enumerate() {
        let wrong = |wrong| Error::invalid(format!("{field}[{index}]"), show(line), wrong);
        if line.size == 0 {
            return Err(wrong("maps nothing: its size is 0"));
        }
        // 4294967295 is no id: it says "unchanged" to chown(2) and setresuid(2).
        if !fits(line.container, line.size) || !fits(line.host, line.size) {
            return Err(wrong("reaches beyond 4294967294, the last id"));
        }
        let overlaps = |a: u32, a_size: u32, b: u32, b_size: u32| {
            u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
        };
        if map[..index].iter().any(|earlier| {
            overlaps(earlier.container, earlier.size, line.container, line.size)
                || overlaps(earlier.host, earlier.size, line.host, line.size)
        }) {
            return Err(wrong("overlaps an earlier line"));
        }
    }
    Ok(())
}

fn check_maps(namespaces: &Namespaces) -> Result<(), Error> {
    let maps = [
        ("linux.uidMappings", &namespaces.uid_map),
        ("linux.gidMappings", &namespaces.gid_map),
    ];
    for (field, map) in maps {
        match namespaces.user {
            Namespace::Host if !map.is_empty() => {
                return Err(Error::NeedsNamespace {
                    field: field.into(),
                    namespace: "user",
                });
            }
            Namespace::New if map.is_empty() => return Err(Error::Missing { field: field.into() }),
            Namespace::New if !maps_id(map, 0) => {
                return Err(Error::Unmapped {
                    field: field.into(),
                    id: 0,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `id` is one in the container.
pub(super) fn maps_id(map: &[IdMap], id: u32) -> bool {
    map.iter()
        .any(|line| id >= line.container && id - line.container < line.size)
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(u32, i64, u32)>, Error> {
    let given = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty());
    let Some(given) = given else { return Ok(Vec::new()) };
    if namespaces.time != Namespace::New {
        // An existing namespace's offsets cannot be changed: time_namespaces(7).
        return Err(Error::NeedsNamespace {
            field: "linux.timeOffsets".into(),
            namespace: "new time",
        });
    }
    let mut offsets = Vec::with_capacity(given.len());
    for (clock, offset) in given {
        let field = format!("linux.timeOffsets.{clock}");
        let id = match clock.as_str() {
            "monotonic" => libc::CLOCK_MONOTONIC,
            "boottime" => libc::CLOCK_BOOTTIME,
            _ => {
                return Err(Error::invalid(
                    "linux.timeOffsets",
                    clock,
                    "is neither monotonic nor boottime",
                ));
            }
        };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds > 999_999_999 {
            return Err(Error::number(field + ".nanosecs", nanoseconds, "is a second or more"));
        }
        offsets.push((id as u32, offset.secs().unwrap_or(0), nanoseconds));
    }
    offsets.sort_unstable();
    Ok(offsets)
}
