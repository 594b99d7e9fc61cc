//! cgroup v2 alone (Documentation/admin-guide/cgroup-v2.rst).

mod create;
mod delete;
mod devices;
mod freezer;
mod kill;
mod oom;
mod program;
pub(super) mod settings;
mod stats;
#[cfg(test)]
mod tests;
mod write;

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::hierarchy::Host;
use super::path::CgroupsPath;
use super::stats::Keyed;
use super::{Error, Place};
pub(super) use oom::Watch;

/// A container's cgroup.
#[derive(Debug, Clone)]
pub(super) struct V2 {
    part: Directory,
}

impl V2 {
    pub fn of(host: &Host, path: &CgroupsPath) -> Result<Self, Error> {
        let hierarchy = host.unified.as_ref().ok_or(Error::NoHierarchy)?;
        Ok(Self {
            part: Directory {
                hierarchy: hierarchy.clone(),
                path: path.below(hierarchy)?,
            },
        })
    }

    pub fn places(&self) -> Vec<Place> {
        vec![Place {
            controllers: Vec::new(),
            mount_point: self.part.hierarchy.mount_point.clone(),
            directory: self.part.full(),
        }]
    }

    pub fn exists(&self) -> bool {
        self.part.has("")
    }

    pub fn unified(&self) -> &Directory {
        &self.part
    }

    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        self.part.open("", OFlags::PATH | OFlags::DIRECTORY).map(Some)
    }

    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        super::processes::processes(&self.part)
    }
}

/// Waits until cgroup.events says `name wanted`; false when `limit` is over. A cgroup that is gone says nothing any
/// more, and that is as good.
fn await_event(part: &Directory, name: &str, wanted: u64, limit: Duration) -> Result<bool, Error> {
    const EVENTS: &str = "cgroup.events";
    let deadline = Instant::now() + limit;
    loop {
        // Opened anew each time: what is read from the start of an open file may be of a moment ago.
        let file = match part.try_open(EVENTS, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
            Err(source) => return Err(io("open", part, EVENTS, source)),
        };
        let text = match super::directory::read_all(&file) {
            Ok(text) => text,
            Err(Errno::NODEV) => return Ok(true),
            Err(source) => return Err(io("read", part, EVENTS, source)),
        };
        if Keyed::parse(&text).get(name) == wanted {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match rustix::event::poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(io("wait for", part, EVENTS, source)),
        }
    }
}

fn io(operation: &'static str, part: &Directory, file: &str, source: Errno) -> Error {
    Error::Io {
        operation,
        path: part.file(file),
        source,
    }
}
