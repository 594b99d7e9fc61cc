//! Cleaning up after a shim that died: from the record alone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::Error;
use super::lifecycle_hooks::poststop;
use crate::cgroup::Cgroup;
use crate::hooks;
use crate::record::{ProcessId, Record};
use crate::sys::process;

/// How long one container's processes have to leave its cgroups: containerd gives `delete` five seconds in all.
const LIMIT: Duration = Duration::from_secs(4);

/// How long a shim that was killed may take to be gone.
const SHIM_LIMIT: Duration = Duration::from_millis(500);

/// What [`clean`] found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cleaned {
    /// Init's pid, where the record had one.
    pub pid: Option<i32>,
}

/// Cleans up the container of `bundle` after its shim died, from its record alone, and, where the container was the
/// group's leader (its id is the group), every other container of the group whose shim is the same dead one: with a
/// version-3 bootstrap containerd never asks for them. Idempotent.
///
/// # Errors
/// The first thing that could not be cleaned; the record stays then, so that one may try again.
pub fn clean(bundle: &Path) -> Result<Cleaned, Error> {
    let Some(record) = Record::read(bundle)? else {
        return Ok(Cleaned::default());
    };
    let cleaned = Cleaned {
        pid: record.init.map(|init| init.pid),
    };
    // containerd calls as soon as the connection breaks: a killed shim may still be on its way out, with its socket
    // open.
    let shim_is_gone = ends_within(record.shim, SHIM_LIMIT);
    let mut result = clean_one(bundle, &record);
    if shim_is_gone {
        if record.id == record.group {
            for (sibling, other) in group_of(bundle, &record) {
                result = result.and(clean_one(&sibling, &other));
            }
        }
        if let Some(socket) = &record.socket {
            match std::fs::remove_file(socket) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    result = result.and(Err(Error::Io {
                        operation: "removing the dead shim's socket",
                        source,
                    }));
                }
                _ => {}
            }
        }
    }
    result.map(|()| cleaned)
}

/// Whether the process has ended (a zombie has), now or within `limit`.
fn ends_within(id: ProcessId, limit: Duration) -> bool {
    let Some(pidfd) = open(id) else { return true };
    let limit = rustix::event::Timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: limit.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

fn clean_one(bundle: &Path, record: &Record) -> Result<(), Error> {
    // By pidfd and start time: a pid that was used again is somebody else's.
    if let Some(init) = record.init {
        kill(init)?;
    }
    if let Some(path) = &record.cgroup {
        Cgroup::open(path)?.delete(LIMIT)?;
    }
    if let Some(directory) = &record.sandbox {
        crate::gvisor::clean(directory).map_err(|error| Error::Io {
            operation: "removing a sandbox's files",
            source: io::Error::other(error),
        })?;
    }
    // Before the hooks: containerd gives all this five seconds, and a hook may take more.
    Record::remove(bundle)?;
    let state = || {
        let state = hooks::State {
            id: &record.id,
            status: "stopped",
            pid: 0,
            bundle,
            annotations: &record.annotations,
        };
        state.to_json()
    };
    // The container is gone; what a poststop hook says does not change that.
    let _ = poststop(&record.poststop, bundle, state);
    Ok(())
}

/// The very process, if it still exists.
fn open(id: ProcessId) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(id.pid)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // Opened first and compared then: what the fd refers to cannot change any more.
    id.is_alive().then_some(pidfd)
}

fn kill(id: ProcessId) -> Result<(), Error> {
    let Some(pidfd) = open(id) else { return Ok(()) };
    match process::send_signal(&pidfd, libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(Error::Io {
            operation: "killing init",
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The other bundles of the same namespace whose record names the same group and the same shim.
fn group_of(bundle: &Path, leader: &Record) -> Vec<(PathBuf, Record)> {
    let Some(namespace) = bundle.parent() else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(namespace) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path != bundle)
        .filter_map(|path| Some((Record::read(&path).ok()??, path)))
        .filter(|(record, _)| record.group == leader.group && record.shim == leader.shim)
        .map(|(record, path)| (path, record))
        .collect()
}
