//! What `containerd-shim-nucleus-v2 runsc` does: a process of our own that places itself, mounts what runsc's gofer is
//! to find, takes the host's programs out of reach, and becomes runsc. One thread; nothing of it outlives the execve.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::command::{CONSOLE_FD, LOG_FD};
use super::launch::{Files, Request};
use super::{Error, failing, file, spec};
use crate::error_chain::chain;
use crate::mounts::{self, Tree};
use crate::native::from_memfd;
use crate::plan::{Container, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MountSource};
use crate::sys::mount::{MountAttr, set_attributes};
use crate::sys::spawn::{attach, reset_signals};
use crate::sys::{message, namespace, process};

/// The socket to the shim, at the launcher's start.
const SOCKET_FD: i32 = 3;

/// Never returns: it becomes runsc, or tells the shim why not.
pub fn launcher_main() -> ! {
    let Ok(socket) = process::inherited(SOCKET_FD) else {
        process::exit_now(2)
    };
    if let Err(error) = launch(&socket) {
        let text = chain(&error);
        let length = text.len().min(message::MAX_BYTES);
        // The shim may be gone: nobody is left to hear.
        let _ = message::send(&socket, &text.as_bytes()[..length], &[]);
    }
    process::exit_now(1)
}

fn launch(socket: &OwnedFd) -> Result<(), Error> {
    process::set_dumpable(false).map_err(failing("hiding the launcher's memory"))?;
    reset_signals();
    let (_, fds) = message::receive(socket).map_err(failing("hearing from the shim"))?;
    let mut fds = fds.into_iter();
    let (Some(request), Some(runsc), Some(log)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(failing("hearing from the shim")(io::ErrorKind::UnexpectedEof.into()));
    };
    let request: Request = from_memfd(request).map_err(failing("reading the request"))?;
    let console = if request.console { fds.next() } else { None };
    let mut places: Vec<OwnedFd> = fds.collect();
    let unified = if request.unified { places.pop() } else { None };
    join(&places, unified.as_ref())?;
    namespace::unshare(libc::CLONE_NEWNS).map_err(failing("unsharing the mount namespace"))?;
    match &request.files {
        Some(files) => mount(files)?,
        None => forbid_programs()?,
    }
    if request.terminal {
        process::set_controlling_terminal(process::standard_stream(0))
            .map_err(failing("taking control of the terminal"))?;
    }
    rustix::process::chdir("/").map_err(|errno| failing("changing to /")(errno.into()))?;
    let arguments: Vec<CString> = request
        .arguments
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|error| failing("naming runsc's arguments")(error.into()))?;
    let arguments: Vec<_> = arguments.iter().map(CString::as_c_str).collect();
    let handed = [(Some(log), LOG_FD), (console, CONSOLE_FD)];
    let handed: Vec<(&OwnedFd, i32)> = handed.iter().filter_map(|(fd, at)| Some((fd.as_ref()?, *at))).collect();
    // The shim's socket is at one of these numbers: it is moved out of the way, and closes with the execve.
    let moved =
        rustix::io::fcntl_dupfd_cloexec(socket, 64).map_err(|errno| failing("moving a socket")(errno.into()))?;
    let runsc = rustix::io::fcntl_dupfd_cloexec(&runsc, 64).map_err(|errno| failing("moving runsc")(errno.into()))?;
    let failed = process::become_program(&runsc, &arguments, &handed);
    let text = format!("executing runsc: {failed}");
    let _ = message::send(&moved, text.as_bytes(), &[]);
    process::exit_now(1)
}

/// The launcher and all that comes of it are in the container's cgroups.
fn join(places: &[OwnedFd], unified: Option<&OwnedFd>) -> Result<(), Error> {
    for place in places {
        rustix::io::write(place, b"0").map_err(|errno| failing("joining the cgroup")(errno.into()))?;
    }
    if let Some(directory) = unified {
        rustix::fs::openat(
            directory,
            c"cgroup.procs",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|file| rustix::io::write(&file, b"0"))
        .map_err(|errno| failing("joining the unified cgroup")(errno.into()))?;
    }
    Ok(())
}

/// The rootfs at its path, what is masked in it, and the sources of bind mounts, each under its name: all of it
/// without device nodes (CVE-2026-96812: a helper on the host's side opened one that was in the image), and seen by
/// nobody else.
fn mount(files: &Files) -> Result<(), Error> {
    let container = of_the_image(&files.container);
    let proc = rustix::fs::open(
        c"/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failing("opening /proc")(errno.into()))?;
    let tree = Tree::open(&container, proc.as_fd())?;
    forbid_programs()?;
    let nodev = MountAttr {
        set: MOUNT_ATTR_NODEV,
        ..MountAttr::default()
    };
    set_attributes(tree.root(), true, nodev).map_err(failing("taking device nodes from the rootfs"))?;
    if let Some(name) = files.leftover.as_ref().filter(|_| !container.rootfs.readonly) {
        match rustix::fs::unlinkat(tree.root(), name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => {
                return Err(failing("removing what an earlier sentry left in the rootfs")(
                    errno.into(),
                ));
            }
        }
    }
    tree.attach_root(&container)?;
    tree.seal_paths(&container)?;
    let directory = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| file("opening", path)(errno.into()))
    };
    let private = mounts::open_filesystem(&private())?;
    attach(&private, directory(&files.mounts)?.as_fd()).map_err(failing("mounting the sources' directory"))?;
    let mut seen = BTreeSet::new();
    for ((mount, name), source) in container.mounts.iter().zip(&files.names).zip(tree.sources()) {
        let (MountSource::Bind { .. }, Some(source)) = (&mount.source, source) else {
            continue;
        };
        if !seen.insert(name) {
            continue;
        }
        set_attributes(source, true, nodev).map_err(failing("taking device nodes from a volume"))?;
        let target = mount_point(private.as_fd(), name, source).map_err(failing("making a mount point"))?;
        attach(source, target.as_fd()).map_err(failing("mounting a volume"))?;
    }
    Ok(())
}

/// Makes every mount of the host noexec, in this process' mount namespace: nothing of the host's is executed by runsc,
/// or by what it starts, but runsc itself, from its own detached clone. What was opened before, the container's own
/// files, is not meant: the sentry maps programs from there, which noexec would deny.
///
/// A Landlock domain could say the same more exactly, and would deny runsc every mount that it makes.
fn forbid_programs() -> Result<(), Error> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failing("opening /")(errno.into()))?;
    let noexec = MountAttr {
        set: MOUNT_ATTR_NOEXEC,
        ..MountAttr::default()
    };
    set_attributes(&root, true, noexec).map_err(failing("taking the host's programs from runsc"))
}

/// The sentry's /proc and /sys are its own: what is to be hidden there is not in them.
fn of_the_image(container: &Container) -> Container {
    let mut container = container.clone();
    container.masked_paths.retain(spec::is_of_the_image);
    container.readonly_paths.retain(spec::is_of_the_image);
    container
}

/// The file system that the sources' mount points are in.
fn private() -> crate::plan::Mount {
    crate::plan::Mount {
        destination: "the sources of mounts".into(),
        source: MountSource::New {
            kind: "tmpfs".into(),
            source: "nucleus".into(),
        },
        set: MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID,
        data: vec!["mode=0755".into(), "size=64k".into()],
        ..Default::default()
    }
}

fn mount_point(directory: BorrowedFd<'_>, name: &str, source: &OwnedFd) -> io::Result<OwnedFd> {
    let stat = rustix::fs::fstat(source)?;
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    }
    Ok(rustix::fs::openat(directory, name, path, Mode::empty())?)
}
