//! Mounts: those of the spec, and those that make the rootfs.

use std::fmt::Display;
use std::path::Path;

use oci_spec::runtime as oci;

use super::error::Entry;
use super::options::{self, Binding, MOUNT_ATTR_RDONLY};
use super::{Error, IdMap, Mount, MountIdMap, MountSource, Namespace, Namespaces, RootfsMount, namespace, path};

/// Bytes of a file system type's name and of one option: more than any that exists; bounded, since they are copied.
const KIND_MAX: usize = 255;
const OPTION_MAX: usize = 64 << 10;

/// What may be mounted below /proc: files that lxcfs and its like give out, as runc allows them. Anything else there
/// could redirect a write of ours (CVE-2019-16884).
const BELOW_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// `mounts`, in their order.
pub(super) fn mounts(
    given: &Option<Vec<oci::Mount>>,
    bundle: &Path,
    namespaces: &Namespaces,
) -> Result<Vec<Mount>, Error> {
    let given = given.as_deref().unwrap_or_default();
    given
        .iter()
        .enumerate()
        .map(|(index, mount)| translate(index, mount, bundle, namespaces))
        .collect()
}

fn translate(index: usize, given: &oci::Mount, bundle: &Path, namespaces: &Namespaces) -> Result<Mount, Error> {
    let at = Entry { list: "mounts", index };
    let destination = path::text(&at.field("destination"), given.destination())?;
    path::check(&at.field("destination"), destination)?;
    let mut mount = Mount {
        destination: path::clean(destination),
        ..Mount::default()
    };

    let options = given.options().iter().flatten().map(String::as_str);
    let mut binding = options::apply(&at.field("options"), options, &mut mount)?;
    let kind = given.typ().as_deref().unwrap_or_default();
    if kind == "bind" {
        binding = binding.or(Some(Binding::Bind));
    }
    let source = match given.source() {
        Some(source) => path::text(&at.field("source"), source)?,
        None => "",
    };
    mount.source = self::source(at, kind, source, binding, bundle)?;
    check_destination(&at.field("destination"), &mount, kind)?;
    id_maps(at, given, &mut mount, namespaces)?;
    finish(at, &mut mount, source)?;
    Ok(mount)
}

/// What containerd's snapshotter gives for the rootfs.
pub(super) fn rootfs(given: &[RootfsMount], bundle: &Path) -> Result<Vec<Mount>, Error> {
    given
        .iter()
        .enumerate()
        .map(|(index, mount)| translate_rootfs(index, mount, bundle))
        .collect()
}

fn translate_rootfs(index: usize, given: &RootfsMount, bundle: &Path) -> Result<Mount, Error> {
    let at = Entry { list: "rootfs", index };
    if !given.target.is_empty() {
        path::check(&at.field("target"), &given.target)?;
    }
    let mut mount = Mount {
        destination: path::clean(&given.target),
        ..Mount::default()
    };
    let mut binding = options::apply(
        &at.field("options"),
        given.options.iter().map(String::as_str),
        &mut mount,
    )?;
    if given.kind == "bind" {
        binding = binding.or(Some(Binding::Bind));
    }
    mount.source = source(at, &given.kind, &given.source, binding, bundle)?;
    // containerd's own options, not the kernel's: the layers' ids, mapped for a pod in a user namespace.
    let maps = ["uidmap=", "gidmap="].map(|prefix| mount.data.iter().find_map(|option| option.strip_prefix(prefix)));
    match maps {
        [Some(uids), Some(gids)] => {
            let uid_map = parse_map(&at.field("options"), uids)?;
            let gid_map = parse_map(&at.field("options"), gids)?;
            mount.idmap = Some(MountIdMap {
                recursive: false,
                uid_map,
                gid_map,
            });
        }
        [None, None] => {}
        _ => return Err(Error::missing(at.field("options: one of uidmap and gidmap"))),
    }
    mount
        .data
        .retain(|option| !option.starts_with("uidmap=") && !option.starts_with("gidmap="));
    finish(at, &mut mount, &given.source)?;
    Ok(mount)
}

/// `container:host:size`, several with commas between.
fn parse_map(field: &dyn Display, text: &str) -> Result<Vec<IdMap>, Error> {
    let line = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(container)), Some(Some(host)), Some(Some(size)), None) => Some(IdMap { container, host, size }),
            _ => None,
        }
    };
    let map: Option<Vec<IdMap>> = text.split(',').map(line).collect();
    let map = map.ok_or_else(|| Error::invalid(field, text, "is not a map like 0:100000:65536"))?;
    namespace::check_map(field, &map)?;
    Ok(map)
}

fn source(
    at: Entry<'_>,
    kind: &str,
    source: &str,
    binding: Option<Binding>,
    bundle: &Path,
) -> Result<MountSource, Error> {
    if let Some(binding) = binding {
        // The type says nothing about a bind: whatever stands there is ignored, as everywhere.
        path::check(&at.field("source"), source)?;
        let path = if source.starts_with('/') {
            source.into()
        } else {
            bundle.join(source)
        };
        return Ok(MountSource::Bind {
            path,
            recursive: binding == Binding::Recursive,
        });
    }
    if kind.is_empty() {
        return Err(Error::missing(at.field("type")));
    }
    if kind.len() > KIND_MAX || kind.contains(['\0', '/', ',']) {
        return Err(Error::invalid(at.field("type"), kind, "is not a file system type"));
    }
    if !source.is_empty() {
        path::check(&at.field("source"), source)?;
    }
    Ok(match kind {
        "cgroup" | "cgroup2" => MountSource::Cgroup,
        _ => MountSource::New {
            kind: kind.into(),
            source: source.into(),
        },
    })
}

/// What must not be mounted over: `/` is the rootfs, and what is below /proc is trusted by whoever writes labels,
/// limits and maps there. The rest of the rule, for a destination that is a link, belongs to whoever resolves it.
fn check_destination(field: &dyn Display, mount: &Mount, kind: &str) -> Result<(), Error> {
    let destination = mount.destination.as_str();
    if destination == "/" {
        return Err(Error::invalid(field, destination, "is the rootfs itself"));
    }
    if destination == "/proc" && !matches!(mount.source, MountSource::Bind { .. }) && kind != "proc" {
        return Err(Error::invalid(field, destination, "takes a mount of type proc only"));
    }
    if destination.starts_with("/proc/") && !BELOW_PROC.contains(&destination) {
        return Err(Error::invalid(
            field,
            destination,
            "is inside /proc, where nothing may be mounted",
        ));
    }
    Ok(())
}

fn id_maps(at: Entry<'_>, given: &oci::Mount, mount: &mut Mount, namespaces: &Namespaces) -> Result<(), Error> {
    let uid_map = namespace::id_map(&at.field("uidMappings"), given.uid_mappings())?;
    let gid_map = namespace::id_map(&at.field("gidMappings"), given.gid_mappings())?;
    match (uid_map.is_empty(), gid_map.is_empty()) {
        (true, true) => {}
        (true, false) => {
            return Err(Error::missing(at.field("uidMappings")));
        }
        (false, true) => {
            return Err(Error::missing(at.field("gidMappings")));
        }
        (false, false) => {
            // Maps without the option mean the mount alone.
            let idmap = mount.idmap.get_or_insert_default();
            idmap.uid_map = uid_map;
            idmap.gid_map = gid_map;
        }
    }
    let Some(idmap) = &mount.idmap else { return Ok(()) };
    if idmap.uid_map.is_empty() && namespaces.user == Namespace::Host {
        return Err(Error::NeedsNamespace {
            field: at.field("options: idmap without mappings").to_string(),
            namespace: "user",
        });
    }
    if !matches!(mount.source, MountSource::Bind { .. }) {
        return Err(Error::unsupported(
            at.field("options: idmap"),
            "only binds can be mapped; leave it out",
        ));
    }
    Ok(())
}

/// What options and sources have to do with each other.
fn finish(at: Entry<'_>, mount: &mut Mount, source: &str) -> Result<(), Error> {
    if let Some(long) = mount.data.iter().find(|option| option.len() > OPTION_MAX) {
        return Err(Error::invalid(at.field("options"), long, "is too long for an option"));
    }
    let kind = match &mount.source {
        MountSource::Bind { .. } => {
            // The kernel takes no notice of either with a bind. A `noexc` that goes unnoticed is a hole.
            let idle = mount.data.first().or(mount.superblock.first());
            if let Some(option) = idle {
                return Err(Error::invalid(
                    at.field("options"),
                    option,
                    "means nothing for a bind; remove it",
                ));
            }
            "bind"
        }
        MountSource::Cgroup => "cgroup",
        MountSource::NamespaceRoot { .. } => "tmpfs",
        MountSource::New { kind, .. } => kind,
    };
    if mount.copy_up && kind != "tmpfs" {
        return Err(Error::unsupported(
            at.field("options: tmpcopyup"),
            "only a tmpfs can be filled; leave it out",
        ));
    }
    // A device that is not to be written to has to be opened so; block file systems refuse a read-only device
    // otherwise.
    if matches!(mount.source, MountSource::New { .. }) && source.starts_with('/') && mount.set & MOUNT_ATTR_RDONLY != 0
    {
        mount.superblock.push("ro".into());
    }
    Ok(())
}
