//! Learning of OOM kills: inotify on memory.events.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::V2;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::stats::Keyed;

const EVENTS: &str = "memory.events";

/// The v2 part of [`crate::cgroup::OomWatch`].
#[derive(Debug)]
pub(in crate::cgroup) struct Watch {
    inotify: OwnedFd,
    events: OwnedFd,
    part: Directory,
    seen: u64,
}

impl V2 {
    pub fn watch_oom(&self) -> Result<Watch, Error> {
        let part = &self.part;
        let events = match part.try_open(EVENTS, OFlags::RDONLY) {
            Ok(events) => events,
            Err(Errno::NOENT) => {
                return Err(Error::NotEnabled {
                    controller: "memory".into(),
                    field: "the watch for OOM kills",
                    directory: part.full(),
                });
            }
            Err(source) => return Err(super::io("open", part, EVENTS, source)),
        };
        let failed = |source| super::io("watch", part, EVENTS, source);
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        inotify::add_watch(&inotify, part.file(EVENTS), WatchFlags::MODIFY).map_err(failed)?;
        let mut watch = Watch {
            inotify,
            events,
            part: part.clone(),
            seen: 0,
        };
        watch.seen = watch.count()?.unwrap_or_default();
        Ok(watch)
    }
}

impl Watch {
    pub fn fd(&self) -> &OwnedFd {
        &self.inotify
    }

    pub fn take(&mut self) -> Result<u64, Error> {
        self.drain()?;
        // The cgroup has gone: what was not counted before never will be.
        let Some(count) = self.count()? else { return Ok(0) };
        let new = count.saturating_sub(self.seen);
        self.seen = count;
        Ok(new)
    }

    fn drain(&self) -> Result<(), Error> {
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(source) => return Err(super::io("read the notifications of", &self.part, EVENTS, source)),
            }
        }
    }

    /// `oom_kill`, those of cgroups below included; None where the cgroup has gone.
    fn count(&self) -> Result<Option<u64>, Error> {
        let mut text = [0; 512];
        match rustix::io::pread(&self.events, &mut text, 0) {
            Ok(length) => Ok(Some(
                Keyed::parse(&String::from_utf8_lossy(&text[..length])).get("oom_kill"),
            )),
            Err(Errno::NODEV) => Ok(None),
            Err(source) => Err(super::io("read", &self.part, EVENTS, source)),
        }
    }
}
