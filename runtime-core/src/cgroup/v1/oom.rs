//! Learning of OOM kills: an eventfd on memory.oom_control (cgroup-v1/memory.rst, "OOM Control").

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::stats::Keyed;

const CONTROL: &str = "memory.oom_control";

/// The v1 part of [`crate::cgroup::OomWatch`].
#[derive(Debug)]
pub(in crate::cgroup) struct Watch {
    event: OwnedFd,
    /// Held open, as the registration lives only as long as it does.
    control: OwnedFd,
    part: Directory,
    seen: u64,
    pending: bool,
}

impl V1 {
    pub fn watch_oom(&self) -> Result<Watch, Error> {
        let part = self.of_controller("memory").ok_or(Error::NotMounted {
            controller: "memory",
            setting: "the watch for OOM kills",
        })?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|source| Error::Io {
            operation: "make an eventfd for",
            path: part.file(CONTROL),
            source,
        })?;
        let control = part.open(CONTROL, OFlags::RDONLY)?;
        part.write(
            "cgroup.event_control",
            &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
        )?;
        let mut watch = Watch {
            event,
            control,
            part: part.clone(),
            seen: 0,
            pending: false,
        };
        watch.seen = watch.count()?.unwrap_or_default();
        Ok(watch)
    }
}

impl Watch {
    pub fn fd(&self) -> &OwnedFd {
        &self.event
    }

    pub fn pending(&self) -> bool {
        self.pending
    }

    pub fn take(&mut self) -> Result<u64, Error> {
        let notified = self.drain()?;
        // The cgroup has gone: what was not counted before never will be.
        let Some(count) = self.count()? else {
            self.pending = false;
            return Ok(0);
        };
        let new = count.saturating_sub(self.seen);
        self.seen = count;
        self.pending = new == 0 && (notified || self.pending);
        Ok(new)
    }

    fn drain(&self) -> Result<bool, Error> {
        match rustix::io::read(&self.event, &mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(source) => Err(Error::Io {
                operation: "read the eventfd of",
                path: self.part.file(CONTROL),
                source,
            }),
        }
    }

    /// `oom_kill` (since Linux 4.13); None where the cgroup has gone.
    fn count(&self) -> Result<Option<u64>, Error> {
        let mut text = [0; 256];
        match rustix::io::pread(&self.control, &mut text, 0) {
            Ok(length) => Ok(Some(
                Keyed::parse(&String::from_utf8_lossy(&text[..length])).get("oom_kill"),
            )),
            Err(Errno::NODEV) => Ok(None),
            Err(source) => Err(Error::Io {
                operation: "read",
                path: self.part.file(CONTROL),
                source,
            }),
        }
    }
}
