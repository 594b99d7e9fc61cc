//! The container's tree, from detached mounts to the switched root: one step a method, in the order of the holder.

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::audit::{Allowed, Ledger, Made};
use super::filesystem::{self, clone_handle, is_late_readonly, set_propagation};
use super::{
    Error, cgroup, copy_up, devices, idmap, is_new, is_proc, namespace_root, paths, rootfs, secrets, switch_root,
    verified,
};
use crate::mounts::HierarchyView;
use crate::plan::{Container, Mount, MountSource, Namespace};
use crate::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, set_attributes,
};
use crate::sys::spawn::attach;

/// The mounts of one container while they are being made.
#[derive(Debug)]
pub struct Tree {
    /// The rootfs' own mounts; the first is the root, the rest are attached below it.
    rootfs: Vec<OwnedFd>,
    /// One for each of the container's mounts: the bind sources, opened with the host root's rights.
    sources: Vec<Option<OwnedFd>>,
    /// Clones of the host's nodes, in a user namespace.
    devices: Vec<OwnedFd>,
    /// What becomes read-only at the end.
    late_readonly: Vec<OwnedFd>,
    /// What was attached, for the audit.
    ledger: RefCell<Ledger>,
}

/// Propagation of everything before the container's own wishes: changes of the host arrive, none go out.
const DEFAULT_PROPAGATION: u64 = libc::MS_SLAVE | libc::MS_REC;

impl Tree {
    /// Opens what needs the host root's rights and the host's view: the rootfs, bind sources, device nodes. Nothing is
    /// attached yet: what is opened here vanishes with its fd.
    pub fn open(container: &Container, proc: BorrowedFd<'_>) -> Result<Self, Error> {
        let bundle = &container.bundle;
        let propagation = container.rootfs.propagation.unwrap_or(DEFAULT_PROPAGATION);
        let rootfs = rootfs::open(container, propagation, proc)?;
        let sources = container
            .mounts
            .iter()
            .map(|mount| match &mount.source {
                MountSource::Bind { path, recursive } => {
                    let clone = match container.refuse_host_paths {
                        true => filesystem::clone_host_unless_given_away,
                        false => filesystem::clone_host,
                    };
                    let mut fd = clone(mount, path, *recursive, bundle)?;
                    if let Some(digest) = &mount.digest {
                        fd = verified::copy(mount, &fd, digest, proc)?;
                    }
                    if let Some(owner) = mount.in_memory {
                        fd = secrets::copy(mount, &fd, owner, proc)?;
                    }
                    // The clone is a peer of the host's mount until its propagation is cut down.
                    set_propagation(&fd, &mount.destination, propagation | libc::MS_REC)?;
                    for &flags in &mount.propagation {
                        set_propagation(&fd, &mount.destination, flags)?;
                    }
                    Ok(Some(fd))
                }
                MountSource::NamespaceRoot { path } => {
                    let fd = namespace_root::clone(mount, path, proc)?;
                    set_propagation(&fd, &mount.destination, DEFAULT_PROPAGATION)?;
                    Ok(Some(fd))
                }
                MountSource::New { .. } | MountSource::Cgroup => Ok(None),
            })
            .collect::<Result<_, Error>>()?;
        let devices = if container.namespaces.user == Namespace::Host {
            Vec::new()
        } else {
            container
                .devices
                .iter()
                .map(devices::clone_host)
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            rootfs,
            sources,
            devices,
            late_readonly: Vec::new(),
            ledger: RefCell::default(),
        })
    }

    /// Maps the ids of the mounts that ask for it: by maps of their own, else by the container's user namespace.
    pub fn map_ids(
        &self,
        container: &Container,
        user_namespace: Option<BorrowedFd<'_>>,
        proc: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        for (mount, source) in container.mounts.iter().zip(&self.sources) {
            let (Some(idmap), Some(source)) = (&mount.idmap, source) else {
                continue;
            };
            idmap::apply(idmap, source, &mount.destination, user_namespace, proc)?;
        }
        Ok(())
    }

    /// Attaches the rootfs at its path, in a mount namespace that is the container's by now.
    pub fn attach_root(&self, container: &Container) -> Result<(), Error> {
        let path = &container.rootfs.path;
        let failed = |operation| {
            move |source: io::Error| Error::Root {
                path: path.clone(),
                operation,
                source,
            }
        };
        let propagation = container.rootfs.propagation.unwrap_or(DEFAULT_PROPAGATION);
        let open = |path: &std::path::Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(io::Error::from)
        };
        let host_root = open("/".as_ref()).map_err(failed("opening /"))?;
        set_propagation(&host_root, "/", propagation)?;
        if propagation & libc::MS_SHARED != 0 {
            // What we attach below a shared mount would appear on the host: that one mount is taken out of its group.
            let parent = parent_mount(path).map_err(failed("finding the mount that it is on"))?;
            let parent = open(&parent).map_err(failed("opening the mount that it is on"))?;
            set_propagation(&parent, "/", libc::MS_PRIVATE)?;
        }
        let target = open(path).map_err(failed("opening it"))?;
        // Private until the root is switched, whatever it is to be then: pivot_root(2) refuses a shared new root.
        set_propagation(&self.rootfs[0], "/", libc::MS_PRIVATE)?;
        attach(&self.rootfs[0], target.as_fd()).map_err(failed("attaching it"))?;
        let below = match container.rootfs.mounts.first() {
            Some(mount) if matches!(mount.source, MountSource::New { .. }) => None,
            // With a directory of the host's comes what is mounted in it.
            _ => Some(0),
        };
        self.note(&self.rootfs[0], "/", 0, below)?;
        for (mount, fd) in container.rootfs.mounts.iter().zip(&self.rootfs).skip(1) {
            let target = paths::target(self.root(), &mount.destination, false)?;
            attach(fd, target.as_fd()).map_err(|source| Error::Attach {
                destination: mount.destination.clone(),
                source,
            })?;
            self.note_mount(fd, mount)?;
        }
        Ok(())
    }

    fn note(&self, fd: impl AsFd, destination: &str, set: u64, below: Option<u64>) -> Result<(), Error> {
        let made = Made {
            destination: destination.to_owned(),
            set,
            below,
        };
        self.ledger.borrow_mut().note(fd, made).map_err(noting)
    }

    fn note_mount(&self, fd: impl AsFd, mount: &Mount) -> Result<(), Error> {
        let below = match mount.source {
            MountSource::New { .. } | MountSource::NamespaceRoot { .. } => None,
            MountSource::Bind { .. } => Some(mount.recursive_set),
            MountSource::Cgroup => Some(mount.set),
        };
        self.note(fd, &mount.destination, mount.set | mount.recursive_set, below)
    }

    /// The container's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.rootfs[0].as_fd()
    }

    /// The sources of bind mounts, in the order of the container's mounts.
    pub fn sources(&self) -> &[Option<OwnedFd>] {
        &self.sources
    }

    /// Everything but proc and what lies below it; then devices and links.
    pub fn attach_mounts(&mut self, container: &Container, hierarchies: &[HierarchyView]) -> Result<(), Error> {
        let procs: Vec<&str> = proc_destinations(container).collect();
        for (index, mount) in container.mounts.iter().enumerate() {
            if !is_proc(mount) && !is_below(&procs, &mount.destination) {
                self.attach_mount(index, mount, hierarchies)?;
            }
        }
        if container.default_dev {
            if self.devices.is_empty() {
                for device in &container.devices {
                    devices::make(self.root(), device)?;
                }
            } else {
                for (device, clone) in container.devices.iter().zip(&self.devices) {
                    devices::attach_clone(self.root(), device, clone)?;
                    self.note(clone, &device.path, 0, None)?;
                }
            }
            devices::make_links(self.root())?;
        }
        Ok(())
    }

    fn attach_mount(&mut self, index: usize, mount: &Mount, hierarchies: &[HierarchyView]) -> Result<(), Error> {
        let destination = &mount.destination;
        if mount.source == MountSource::Cgroup {
            let view = cgroup::attach_view(self.root(), mount, hierarchies)?;
            self.note_mount(&view, mount)?;
            if mount.set & MOUNT_ATTR_RDONLY != 0 {
                self.late_readonly.push(view);
            }
            return Ok(());
        }
        let made;
        let fd = match self.sources[index].take() {
            Some(fd) => {
                made = fd;
                &made
            }
            None => {
                made = filesystem::open(mount)?;
                &made
            }
        };
        let target_failed = |source| Error::Target {
            destination: destination.clone(),
            source,
        };
        let file = !paths::is_directory(fd).map_err(target_failed)?;
        let target = if is_new(mount, "sysfs") {
            paths::real_directory(self.root(), destination)?
        } else {
            paths::target(self.root(), destination, file)?
        };
        if mount.copy_up {
            copy_up::copy(target.as_fd(), fd.as_fd()).map_err(|source| Error::CopyUp {
                path: destination.clone(),
                source,
            })?;
        }
        attach(fd, target.as_fd()).map_err(|source| Error::Attach {
            destination: destination.clone(),
            source,
        })?;
        self.note_mount(fd, mount)?;
        if matches!(mount.source, MountSource::New { .. }) {
            for &flags in &mount.propagation {
                set_propagation(fd, destination, flags)?;
            }
        }
        if is_late_readonly(mount) {
            self.late_readonly.push(made);
        }
        Ok(())
    }

    /// Binds init's terminal to /dev/console.
    pub fn attach_console(&self, proc: BorrowedFd<'_>, slave: &OwnedFd) -> Result<(), Error> {
        let console = devices::attach_console(self.root(), proc, slave)?;
        self.note(console, "/dev/console", 0, None)
    }

    /// The proc instances that init made, in the mounts' order, then what is mounted below them.
    pub fn attach_proc(
        &mut self,
        container: &Container,
        instances: impl Iterator<Item = OwnedFd>,
        hierarchies: &[HierarchyView],
    ) -> Result<(), Error> {
        for (mount, instance) in container.mounts.iter().filter(|mount| is_proc(mount)).zip(instances) {
            let target = paths::real_directory(self.root(), &mount.destination)?;
            attach(&instance, target.as_fd()).map_err(|source| Error::Attach {
                destination: mount.destination.clone(),
                source,
            })?;
            self.note_mount(&instance, mount)?;
        }
        let procs: Vec<&str> = proc_destinations(container).collect();
        for (index, mount) in container.mounts.iter().enumerate() {
            if !is_proc(mount) && is_below(&procs, &mount.destination) {
                self.attach_mount(index, mount, hierarchies)?;
            }
        }
        Ok(())
    }

    /// Read-only paths, then masked ones. A path that does not exist needs neither; any other failure is one.
    pub fn seal_paths(&self, container: &Container) -> Result<(), Error> {
        for path in &container.readonly_paths {
            let made = self.make_read_only(path).map_err(|source| Error::Seal {
                operation: "making read-only",
                path: path.clone(),
                source,
            })?;
            if let Some(clone) = made {
                self.note(clone, path, MOUNT_ATTR_RDONLY, Some(MOUNT_ATTR_RDONLY))?;
            }
        }
        // One empty tmpfs and one /dev/null serve all masks.
        let mut empty: Option<OwnedFd> = None;
        let mut null: Option<OwnedFd> = None;
        for path in &container.masked_paths {
            let failed = |source| Error::Seal {
                operation: "masking",
                path: path.clone(),
                source,
            };
            let Some(target) = paths::existing(self.root(), path).map_err(failed)? else {
                continue;
            };
            let is_directory = paths::is_directory(&target).map_err(failed)?;
            let cover = if is_directory { &mut empty } else { &mut null };
            let clone = match cover {
                Some(attached) => clone_handle(attached.as_fd(), false).map_err(failed)?,
                None if is_directory => empty_directory(container.mount_label.as_deref())?,
                None => null_device()?,
            };
            attach(&clone, target.as_fd()).map_err(failed)?;
            self.note(&clone, path, 0, None)?;
            cover.get_or_insert(clone);
        }
        Ok(())
    }

    fn make_read_only(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        let Some(target) = paths::existing(self.root(), path)? else {
            return Ok(None);
        };
        let clone = clone_handle(target.as_fd(), true)?;
        set_attributes(
            &clone,
            true,
            MountAttr {
                set: MOUNT_ATTR_RDONLY,
                ..MountAttr::default()
            },
        )?;
        attach(&clone, target.as_fd())?;
        Ok(Some(clone))
    }

    /// Makes init's working directory, sets what is to be read-only, and switches the root: of the holder, and of init
    /// with it, whose root is the same.
    pub fn finish(&self, container: &Container, cwd: &str) -> Result<(), Error> {
        let path = &container.rootfs.path;
        let failed = |operation| {
            move |source: io::Error| Error::Root {
                path: path.clone(),
                operation,
                source,
            }
        };
        if paths::existing(self.root(), cwd)
            .map_err(|source| Error::Cwd {
                path: cwd.to_owned(),
                source,
            })?
            .is_none()
        {
            paths::directories(self.root(), cwd).map_err(|source| Error::Cwd {
                path: cwd.to_owned(),
                source,
            })?;
        }
        let read_only = MountAttr {
            set: MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        for fd in &self.late_readonly {
            set_attributes(fd, false, read_only).map_err(failed("making a tmpfs in it read-only"))?;
        }
        if container.rootfs.readonly {
            set_attributes(self.root(), false, read_only).map_err(failed("making it read-only"))?;
            self.ledger
                .borrow_mut()
                .also(self.root(), MOUNT_ATTR_RDONLY)
                .map_err(noting)?;
        }
        switch_root(self.root()).map_err(failed("switching to it (pivot_root)"))?;
        if let Some(propagation) = container.rootfs.propagation {
            let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| failed("opening the new root")(errno.into()))?;
            set_propagation(&root, "/", propagation & !libc::MS_REC)?;
        }
        Ok(())
    }

    /// What of the container's mounts is not as it was meant, by the kernel's word. After [`Self::finish`].
    pub fn audit(&self, container: &Container, proc: BorrowedFd<'_>) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Audit {
            operation: "reading the container's mount table",
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(proc, c"self/mountinfo", flags, Mode::empty());
        let mut table = String::with_capacity(8 << 10);
        let mut file = std::fs::File::from(file.map_err(|errno| failed(errno.into()))?);
        file.read_to_string(&mut table).map_err(failed)?;
        let is_shared = |flags: &u64| flags & libc::MS_SHARED != 0;
        let hooks = &container.hooks;
        let allowed = Allowed {
            others: !hooks.prestart.is_empty()
                || !hooks.create_runtime.is_empty()
                || !hooks.create_container.is_empty(),
            shared: container.rootfs.propagation.iter().any(is_shared)
                || container
                    .mounts
                    .iter()
                    .any(|mount| mount.propagation.iter().any(is_shared)),
        };
        Ok(self.ledger.borrow().differences(&table, allowed))
    }
}

fn noting(source: io::Error) -> Error {
    Error::Audit {
        operation: "asking for a mount's number",
        source,
    }
}

fn proc_destinations(container: &Container) -> impl Iterator<Item = &str> {
    container
        .mounts
        .iter()
        .filter(|mount| is_proc(mount))
        .map(|mount| mount.destination.as_str())
}

fn is_below(procs: &[&str], destination: &str) -> bool {
    procs
        .iter()
        .any(|proc| destination.strip_prefix(proc).is_some_and(|rest| rest.starts_with('/')))
}

fn empty_directory(label: Option<&str>) -> Result<OwnedFd, Error> {
    let mut data = vec!["nr_blocks=1".into(), "nr_inodes=1".into()];
    data.extend(label.map(|label| format!("context={label}")));
    let mount = Mount {
        destination: "a masked directory".into(),
        source: MountSource::New {
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
        },
        set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        superblock: vec!["ro".into()],
        data,
        ..Mount::default()
    };
    filesystem::open(&mount)
}

/// The host's null device, by number: a mask must not be whatever is called so (CVE-2025-31133).
fn null_device() -> Result<OwnedFd, Error> {
    devices::clone_host(&crate::plan::Device {
        path: "/dev/null".into(),
        kind: libc::S_IFCHR,
        major: 1,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}

/// The mount point that `path` is on, from mountinfo (proc_pid_mountinfo(5)).
fn parent_mount(path: &std::path::Path) -> io::Result<std::path::PathBuf> {
    let path = std::fs::canonicalize(path)?;
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| std::path::PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}
