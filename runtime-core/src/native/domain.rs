//! The container's Landlock domain: entered by the holder before it forks init, so that init and every exec'd process
//! are in one and the same. Two equal domains made apart are strangers: a process in one cannot trace, nor look at, one
//! in the other.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::mounts::{self, is_proc};
use crate::plan::{Container, Domain, Mount, MountSource};
use crate::policy::{is_in, plain};
use crate::sys::landlock::{
    ACCESS_FILE, ACCESS_FS_CHANGE_DIR, ACCESS_FS_EXECUTE, ACCESS_FS_IOCTL_DEV, ACCESS_FS_READ_DIR, ACCESS_FS_READ_FILE,
    ACCESS_FS_REFER, ACCESS_FS_TRUNCATE, ACCESS_FS_WRITE_FILE, ACCESS_NET_BIND_TCP, ACCESS_NET_CONNECT_TCP, Ruleset,
    SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL,
};
use crate::sys::namespace;

const READ: u64 = ACCESS_FS_READ_FILE | ACCESS_FS_READ_DIR;
const WRITE: u64 = ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE | ACCESS_FS_CHANGE_DIR;
/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Why there is no domain. Nothing is restricted then, and nothing started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "{setting}: there is no {path} in the container: name what is there, or write -{path} where it may be missing"
    )]
    Missing { setting: &'static str, path: String },
    #[error("{setting}: {path} leads over a symbolic link to {real:?}, which the list does not cover: name that")]
    Link {
        setting: &'static str,
        path: String,
        real: PathBuf,
    },
    #[error("{setting}: {path}: {proc} is a proc file system; a rule can name it as a whole, from Linux 6.17 on")]
    InProc {
        setting: &'static str,
        path: String,
        proc: String,
    },
    #[error("{setting}: {operation} {path}")]
    Path {
        setting: &'static str,
        operation: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("{operation}")]
    Kernel { operation: &'static str, source: io::Error },
}

/// What a domain's rules are put on. A rule is about an inode; what it was found by does not matter later.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The container's root directory, with everything mounted but its proc file systems. One cannot take `/`: before
    /// the switch of the root that is the host's.
    pub root: BorrowedFd<'a>,
    /// The proc file systems, as far as they are made, by their mount points.
    pub procs: &'a [(String, OwnedFd)],
    /// The proc that init and exec'd processes find themselves in.
    pub own_proc: BorrowedFd<'a>,
}

/// The proc that the holder, and whom it forks, find themselves in, where the domain has rules about what is read and
/// written: a new one, which the container cannot have among its mounts. The rule that lets processes set their own
/// limits and labels in it gives nothing else away.
pub fn own_proc() -> Result<OwnedFd, mounts::Error> {
    mounts::open_filesystem(&Mount {
        destination: "the holder's /proc".into(),
        source: MountSource::New {
            kind: "proc".into(),
            source: "proc".into(),
        },
        ..Mount::default()
    })
}

/// The container's proc file systems, made before init is there, for rules to be put on. None where the kernel cannot
/// show a PID namespace from outside: before Linux 6.17.
pub fn make_procs(container: &Container) -> Result<Option<Vec<(String, OwnedFd)>>, mounts::Error> {
    let Ok(pids) = namespace::pid_namespace_of_children() else {
        return Ok(None);
    };
    let mut made = Vec::new();
    for mount in container.mounts.iter().filter(|mount| is_proc(mount)) {
        match mounts::open_proc(mount, pids.as_fd()) {
            Ok(fd) => made.push((mount.destination.clone(), fd)),
            // Not known, or not allowed, as the kernel has it: init makes them, which tells of any other mistake.
            Err(mounts::Error::Filesystem { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(made))
}

/// Puts this process into the domain. What it takes away in any case is what every domain that is about files takes:
/// mounting, moving mounts, switching the root, tracing what is outside.
pub fn enter(domain: &Domain, container: &Container, around: &Surroundings<'_>) -> Result<(), Error> {
    let when = |is_asked: bool, access: u64| if is_asked { access } else { 0 };
    let writes = domain.write.is_some() || domain.writable_mounts.is_some();
    let handled = ACCESS_FS_EXECUTE
        | ACCESS_FS_REFER
        | when(domain.read.is_some(), READ)
        | when(writes, WRITE)
        | when(domain.ioctl.is_some(), ACCESS_FS_IOCTL_DEV);
    let net = when(domain.tcp_bind.is_some(), ACCESS_NET_BIND_TCP)
        | when(domain.tcp_connect.is_some(), ACCESS_NET_CONNECT_TCP);
    let scoped =
        when(domain.scope_abstract_sockets, SCOPE_ABSTRACT_UNIX_SOCKET) | when(domain.scope_signals, SCOPE_SIGNAL);
    let rules = Rules {
        ruleset: Ruleset::new(handled, net, scoped).map_err(kernel("making the ruleset"))?,
        handled,
        container,
        around,
    };
    // Renames go on wherever both directories may be written to; programs run from anywhere, unless a list says where.
    let everywhere = ACCESS_FS_REFER | when(domain.execute.is_none(), ACCESS_FS_EXECUTE);
    let root = rules.ruleset.allow(around.root, everywhere);
    root.map_err(kernel("making the rule for the container's root"))?;
    for (setting, paths, access) in [
        ("landlock.execute", &domain.execute, ACCESS_FS_EXECUTE),
        ("landlock.read", &domain.read, READ),
        ("landlock.write", &domain.write, WRITE),
    ] {
        for path in paths.iter().flatten() {
            rules.list(setting, path, paths.iter().flatten(), access)?;
        }
    }
    for path in domain.writable_mounts.iter().flatten() {
        rules.mount(path)?;
    }
    for path in &domain.devices {
        rules.device(path, READ | ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE)?;
    }
    for path in domain.ioctl.iter().flatten() {
        rules.device(path, ACCESS_FS_IOCTL_DEV)?;
    }
    if domain.is_about_contents() {
        rules.allow("domain", "/proc", around.own_proc, READ | ACCESS_FS_WRITE_FILE)?;
    }
    for (ports, access) in [
        (&domain.tcp_bind, ACCESS_NET_BIND_TCP),
        (&domain.tcp_connect, ACCESS_NET_CONNECT_TCP),
    ] {
        for port in ports.iter().flatten() {
            let allowed = rules.ruleset.allow_port(*port, access);
            allowed.map_err(kernel("making the rule for a port"))?;
        }
    }
    rules.ruleset.restrict_self().map_err(kernel("entering it"))
}

struct Rules<'a> {
    ruleset: Ruleset,
    handled: u64,
    container: &'a Container,
    around: &'a Surroundings<'a>,
}

impl Rules<'_> {
    /// As much of `access` as the domain is about, and as what `fd` is can have.
    fn allow(&self, setting: &'static str, path: &str, fd: BorrowedFd<'_>, access: u64) -> Result<(), Error> {
        let failed = |source| Error::Path {
            setting,
            operation: "making the rule for",
            path: path.to_owned(),
            source,
        };
        let mut access = access & self.handled;
        if !mounts::is_directory(fd).map_err(failed)? {
            access &= ACCESS_FILE;
        }
        if access == 0 {
            return Ok(());
        }
        self.ruleset.allow(fd, access).map_err(failed)
    }

    /// An entry of a list. An image must not decide by a link what the list means (an image's `/data` may be a link to
    /// `/`).
    fn list<'l>(
        &self,
        setting: &'static str,
        entry: &str,
        list: impl Iterator<Item = &'l String>,
        access: u64,
    ) -> Result<(), Error> {
        let path = plain(entry);
        if let Some(proc) = self.proc_of(path) {
            return match self.proc(path) {
                Some(fd) => self.allow(setting, path, fd, access),
                None => Err(Error::InProc {
                    setting,
                    path: path.to_owned(),
                    proc: proc.to_owned(),
                }),
            };
        }
        let failed = |source| Error::Path {
            setting,
            operation: "finding",
            path: path.to_owned(),
            source,
        };
        let missing = || match path == entry {
            true => Err(Error::Missing {
                setting,
                path: path.to_owned(),
            }),
            false => Ok(()),
        };
        match mounts::unlinked(self.around.root, path) {
            Ok(fd) => self.allow(setting, path, fd.as_fd(), access),
            Err(Errno::LOOP) => {
                let Some(real) = self.real(path).map_err(failed)? else {
                    return missing();
                };
                let covered = real
                    .to_str()
                    .is_some_and(|real| list.into_iter().any(|tree| is_in(real, plain(tree))));
                match covered {
                    true => Ok(()),
                    false => Err(Error::Link {
                        setting,
                        path: path.to_owned(),
                        real,
                    }),
                }
            }
            Err(Errno::NOENT | Errno::NOTDIR) => missing(),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// A mount that the spec leaves writable, at which it was attached over the same links.
    fn mount(&self, path: &str) -> Result<(), Error> {
        const SETTING: &str = "landlock.tier";
        if self.proc_of(path).is_some() {
            return self
                .proc(path)
                .map_or(Ok(()), |fd| self.allow(SETTING, path, fd, WRITE));
        }
        let found = mounts::existing(self.around.root, path).map_err(|source| Error::Path {
            setting: SETTING,
            operation: "finding",
            path: path.to_owned(),
            source,
        })?;
        found.map_or(Ok(()), |fd| self.allow(SETTING, path, fd.as_fd(), WRITE))
    }

    /// A device, or the directory of the terminals, where there is one. Nothing else that an image may have at its
    /// path.
    fn device(&self, path: &str, access: u64) -> Result<(), Error> {
        let Ok(fd) = mounts::unlinked(self.around.root, path) else {
            return Ok(());
        };
        let kind = rustix::fs::fstat(&fd).map_or(0, |stat| stat.st_mode & libc::S_IFMT);
        let is_devpts = || rustix::fs::fstatfs(&fd).is_ok_and(|fs| fs.f_type == DEVPTS_MAGIC);
        match kind {
            libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO => {}
            libc::S_IFDIR if is_devpts() => {}
            _ => return Ok(()),
        }
        self.allow("devices", path, fd.as_fd(), access)
    }

    fn proc_of(&self, path: &str) -> Option<&str> {
        let mounts = self.container.mounts.iter().filter(|mount| is_proc(mount));
        let mut points = mounts.map(|mount| mount.destination.as_str());
        points.find(|point| is_in(path, point))
    }

    fn proc(&self, path: &str) -> Option<BorrowedFd<'_>> {
        let found = self.around.procs.iter().find(|(point, _)| point == path);
        found.map(|(_, fd)| fd.as_fd())
    }

    /// Where a path leads in the container, if anywhere.
    fn real(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let Some(found) = mounts::existing(self.around.root, path)? else {
            return Ok(None);
        };
        let name = |fd: BorrowedFd<'_>| -> io::Result<PathBuf> {
            let link = format!("self/fd/{}", fd.as_raw_fd());
            let name = rustix::fs::readlinkat(self.around.own_proc, link, Vec::new())?;
            Ok(Path::new(OsStr::from_bytes(name.as_bytes())).to_owned())
        };
        let (root, found) = (name(self.around.root)?, name(found.as_fd())?);
        let inside = found.strip_prefix(&root).map_err(io::Error::other)?;
        Ok(Some(Path::new("/").join(inside)))
    }
}

fn kernel(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { operation, source }
}
