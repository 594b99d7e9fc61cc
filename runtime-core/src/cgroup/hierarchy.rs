//! The hierarchies that this host has mounted, and where we are in each. Found once a process.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Mode as FileMode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::Error;

const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// Where every distribution mounts them (file-hierarchy(7)).
const USUAL: &str = "/sys/fs/cgroup";
/// The inode of a hierarchy's own root, as opposed to that of a part of it that is mounted into a container.
const ROOT_INODE: u64 = 1;

/// How this host does cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// v1 hierarchies alone.
    V1,
    /// v1 hierarchies, and cgroup v2 beside them at /sys/fs/cgroup/unified, with few controllers or none.
    Hybrid,
    /// cgroup v2 alone.
    V2,
}

/// One hierarchy, as mounted here.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Its controllers (`cpu`, `cpuacct`), or `name=systemd`; none for the unified one.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The mount point, O_PATH.
    pub root: OwnedFd,
    /// Our own cgroup below the mount point, without a leading slash; Err(what is mounted) where it is not below it.
    pub own: Result<String, String>,
    /// Our own cgroup, as /proc/self/cgroup has it.
    pub own_line: String,
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// All hierarchies of this host that a container is placed in.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    pub v1: Vec<Arc<Hierarchy>>,
    /// cgroup v2, beside v1 hierarchies or alone.
    pub unified: Option<Arc<Hierarchy>>,
}

impl Host {
    pub fn mode(&self) -> Result<Mode, Error> {
        match (self.v1.is_empty(), self.unified.is_some()) {
            (false, false) => Ok(Mode::V1),
            (false, true) => Ok(Mode::Hybrid),
            (true, true) => Ok(Mode::V2),
            (true, false) => Err(Error::NoHierarchy),
        }
    }
}

/// This host's hierarchies, found at the first call.
pub(super) fn host() -> Result<&'static Host, Error> {
    static HOST: OnceLock<Host> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host);
    }
    let found = find()?;
    Ok(HOST.get_or_init(|| found))
}

/// How this host does cgroups. Reads the host's mounts at the first call alone.
///
/// # Errors
/// [`Error::NoHierarchy`] where nothing is mounted, and what the kernel says where /proc cannot be read.
pub fn mode() -> Result<Mode, Error> {
    host()?.mode()
}

/// systemd's own cgroup below the mount of `hierarchy`, without a leading slash: all its units are below it. Process 1
/// is in it or, since systemd 226, in init.scope below it. In a container with systemd that is not the root.
pub(super) fn of_systemd(hierarchy: &Hierarchy) -> Result<String, Error> {
    const FILE: &str = "/proc/1/cgroup";
    let memberships = parse_memberships(&read_proc(FILE)?)?;
    let path = memberships
        .into_iter()
        .find(|one| one.controllers == hierarchy.controllers)
        .map_or_else(String::new, |one| one.path);
    Ok(without_init_scope(&path).to_owned())
}

fn without_init_scope(path: &str) -> &str {
    let path = path.trim_matches('/');
    let above = path.strip_suffix("init.scope").unwrap_or(path).trim_end_matches('/');
    // Seen from outside our cgroup namespace: everything that we can name is below the mount.
    if above.split('/').any(|name| name == "..") {
        ""
    } else {
        above
    }
}

/// A line of /proc/self/cgroup (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    /// Empty for cgroup v2.
    controllers: Vec<String>,
    path: String,
}

fn find() -> Result<Host, Error> {
    let memberships = parse_memberships(&read_proc("/proc/self/cgroup")?)?;
    let mut host = Host::default();
    let mut mounts = None;
    for membership in memberships {
        let found = match usual(&membership, &host)? {
            Some(found) => Some(found),
            None => {
                // A mount table has a line for every mount of every pod: it is read only where the usual places fail.
                if mounts.is_none() {
                    mounts = Some(parse_mounts(&read_proc("/proc/self/mountinfo")?)?);
                }
                mounted(membership, mounts.as_deref().unwrap_or_default())?
            }
        };
        let Some(hierarchy) = found else { continue };
        if hierarchy.controllers.is_empty() {
            host.unified = Some(Arc::new(hierarchy));
        } else {
            host.v1.push(Arc::new(hierarchy));
        }
    }
    host.mode().map(|_| host)
}

fn read_proc(file: &'static str) -> Result<String, Error> {
    let bytes = fs::read(file).map_err(|error| io_error("read", Path::new(file), &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn io_error(operation: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Io {
        operation,
        path: path.into(),
        source: Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}

fn parse_memberships(text: &str) -> Result<Vec<Membership>, Error> {
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let controllers = controllers
            .split(',')
            .filter(|name| !name.is_empty())
            .map(String::from)
            .collect();
        path.starts_with('/').then(|| Membership {
            controllers,
            path: path.into(),
        })
    };
    let malformed = |line: &str| Error::HostFile {
        file: "/proc/self/cgroup",
        line: line.into(),
    };
    text.lines()
        .map(|line| parse(line).ok_or_else(|| malformed(line)))
        .collect()
}

/// Looks for the hierarchy at `/sys/fs/cgroup/<its name>`. None where it is not there as a whole.
fn usual(membership: &Membership, host: &Host) -> Result<Option<Hierarchy>, Error> {
    let joined = membership.controllers.join(",");
    let mut names: Vec<&str> = match membership.controllers.as_slice() {
        [] => vec!["unified", "."],
        [one] => vec![one.strip_prefix("name=").unwrap_or(one)],
        several => several.iter().map(String::as_str).collect(),
    };
    if names.len() > 1 && !joined.is_empty() {
        names.insert(0, &joined);
    }
    let magic = if joined.is_empty() {
        CGROUP2_SUPER_MAGIC
    } else {
        CGROUP_SUPER_MAGIC
    };
    for name in names {
        let mount_point = Path::new(USUAL).join(name);
        let Some((root, device)) = open_whole(&mount_point, magic)? else {
            continue;
        };
        // Two names for one hierarchy: a mount that is not what its name says.
        if host
            .v1
            .iter()
            .any(|other| device_of(&other.root).is_ok_and(|taken| taken == device))
        {
            continue;
        }
        let own = membership.path.trim_matches('/').to_owned();
        return Ok(Some(Hierarchy {
            controllers: membership.controllers.clone(),
            mount_point: if name == "." { USUAL.into() } else { mount_point },
            root,
            own: without_dots(own),
            own_line: membership.path.clone(),
        }));
    }
    Ok(None)
}

/// A path with `..` (from outside our cgroup namespace) leads nowhere below the mount.
fn without_dots(own: String) -> Result<String, String> {
    if own.split('/').any(|name| name == "..") {
        Err("/".into())
    } else {
        Ok(own)
    }
}

fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        FileMode::empty(),
    )
}

fn device_of(root: &OwnedFd) -> rustix::io::Result<u64> {
    rustix::fs::fstat(root).map(|stat| stat.st_dev)
}

/// Opens `path` where the whole of a cgroup hierarchy is mounted there.
fn open_whole(path: &Path, magic: u64) -> Result<Option<(OwnedFd, u64)>, Error> {
    let wrap = |operation| {
        move |source| Error::Io {
            operation,
            path: path.into(),
            source,
        }
    };
    let root = match open_root(path) {
        Ok(root) => root,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(wrap("open")(error)),
    };
    let file_system = rustix::fs::fstatfs(&root).map_err(wrap("examine"))?;
    if file_system.f_type as u64 != magic {
        return Ok(None);
    }
    let stat = rustix::fs::statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(wrap("examine"))?;
    let whole = stat.stx_ino == ROOT_INODE && stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let device = device_of(&root).map_err(wrap("examine"))?;
    Ok(whole.then_some((root, device)))
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)) about a cgroup file system.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    root: String,
    mount_point: String,
    v2: bool,
    options: Vec<String>,
}

fn parse_mounts(text: &str) -> Result<Vec<Mounted>, Error> {
    let mut mounts = Vec::new();
    for line in text.lines() {
        let malformed = || Error::HostFile {
            file: "/proc/self/mountinfo",
            line: line.into(),
        };
        let (before, after) = line.split_once(" - ").ok_or_else(malformed)?;
        let mut after = after.split(' ');
        let v2 = match after.next() {
            Some("cgroup") => false,
            Some("cgroup2") => true,
            _ => continue,
        };
        let options = after
            .nth(1)
            .ok_or_else(malformed)?
            .split(',')
            .map(String::from)
            .collect();
        let mut before = before.split(' ').skip(3);
        let (root, mount_point) = before.next().zip(before.next()).ok_or_else(malformed)?;
        mounts.push(Mounted {
            root: unescape(root),
            mount_point: unescape(mount_point),
            v2,
            options,
        });
    }
    Ok(mounts)
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(field: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = field.as_bytes();
    while let [first, rest @ ..] = bytes {
        let digits = rest.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        bytes = if code.is_some() { &rest[3..] } else { rest };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The mount of the hierarchy that `membership` is about: the whole of it where there is one.
fn mounted(membership: Membership, mounts: &[Mounted]) -> Result<Option<Hierarchy>, Error> {
    let is_of = |mount: &&Mounted| match membership.controllers.first() {
        None => mount.v2,
        Some(first) => !mount.v2 && mount.options.contains(first),
    };
    let whole = mounts.iter().filter(is_of).find(|mount| mount.root == "/");
    let Some(mount) = whole.or_else(|| mounts.iter().find(is_of)) else {
        return Ok(None);
    };
    let mount_point = PathBuf::from(&mount.mount_point);
    let root = open_root(&mount_point).map_err(|source| Error::Io {
        operation: "open",
        path: mount_point.clone(),
        source,
    })?;
    let own = below(&mount.root, &membership.path).ok_or_else(|| mount.root.clone());
    Ok(Some(Hierarchy {
        controllers: membership.controllers,
        mount_point,
        root,
        own: own.and_then(without_dots),
        own_line: membership.path,
    }))
}

/// What is left of `path` below `root`, without slashes around it.
fn below(root: &str, path: &str) -> Option<String> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_are_read_with_comounted_named_and_unified_ones() {
        let read = parse_memberships("4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/\n").unwrap();
        let expected = |controllers: &[&str], path: &str| Membership {
            controllers: controllers.iter().map(|&name| name.into()).collect(),
            path: path.into(),
        };
        assert_eq!(
            read,
            [
                expected(&["cpu", "cpuacct"], "/a"),
                expected(&["name=systemd"], "/b:c"),
                expected(&[], "/")
            ]
        );
        assert!(matches!(parse_memberships("nonsense"), Err(Error::HostFile { .. })));
    }

    #[test]
    fn mounts_of_other_file_systems_are_passed_over_and_escapes_undone() {
        let text = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            30 23 0:26 /docker/x /sys/fs/cgroup/cpu,cpuacct rw master:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 23 0:27 / /mnt/a\\040b rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = parse_mounts(text).unwrap();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].root.as_str(), mounts[0].v2), ("/docker/x", false));
        assert_eq!(mounts[0].options, ["rw", "cpu", "cpuacct"]);
        assert_eq!((mounts[1].mount_point.as_str(), mounts[1].v2), ("/mnt/a b", true));
        assert!(parse_mounts("no separator").is_err());
    }

    #[test]
    fn the_cgroup_of_systemd_is_the_one_above_init_scope() {
        let cases = [
            ("/", ""),
            ("/init.scope", ""),
            ("/docker/x/init.scope", "docker/x"),
            ("/docker/x", "docker/x"),
            ("/../..", ""),
        ];
        for (path, above) in cases {
            assert_eq!(without_init_scope(path), above, "{path}");
        }
    }

    #[test]
    fn our_own_cgroup_is_told_below_what_is_mounted() {
        assert_eq!(below("/", "/a/b").as_deref(), Some("a/b"));
        assert_eq!(below("/", "/").as_deref(), Some(""));
        assert_eq!(below("/docker/x", "/docker/x").as_deref(), Some(""));
        assert_eq!(below("/docker/x", "/docker/x/y").as_deref(), Some("y"));
        assert_eq!(below("/docker/x", "/docker/xy"), None);
        assert_eq!(without_dots("../a".into()), Err("/".into()));
    }
}
