//! Learning of OOM kills: inotify on memory.events.
//!
//! systemd takes a scope's cgroup away with its last process, and what it counted is gone then, perhaps before we have
//! read it. The cgroup above stays, and has counted the same kill among its own (cgroup-v2.rst: memory.events is
//! hierarchical). Where that count has grown, and our own file was written to just before, a process that was killed
//! was killed for want of memory.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::V2;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::stats::Keyed;

const EVENTS: &str = "memory.events";
/// How long before the end the last look may have been that what came after it belongs to the end.
const RECENT: Duration = Duration::from_secs(5);

/// The v2 part of [`crate::cgroup::OomWatch`].
#[derive(Debug)]
pub(in crate::cgroup) struct Watch {
    inotify: OwnedFd,
    events: OwnedFd,
    part: Directory,
    seen: u64,
    /// When our own file was read last.
    looked: Instant,
    /// It was written to since.
    unread: bool,
    above: Option<Above>,
}

/// What the cgroup above counted when ours was last read.
#[derive(Debug)]
struct Above {
    events: OwnedFd,
    seen: u64,
}

impl V2 {
    /// `goes`: somebody else takes the cgroup away when it is empty.
    pub fn watch_oom(&self, goes: bool) -> Result<Watch, Error> {
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
            looked: Instant::now(),
            unread: false,
            above: None,
        };
        if goes && let Some(Ok(events)) = part.parent().map(|above| above.try_open(EVENTS, OFlags::RDONLY)) {
            let seen = count(&events).unwrap_or_default();
            watch.above = Some(Above { events, seen });
        }
        watch.seen = watch.count()?.unwrap_or_default();
        Ok(watch)
    }
}

impl Watch {
    pub fn fd(&self) -> &OwnedFd {
        &self.inotify
    }

    pub fn take(&mut self) -> Result<u64, Error> {
        self.unread |= self.drain()?;
        // Before our own: what happens in between is told twice rather than never.
        let above = self.above();
        // The cgroup has gone: what was not counted before never will be.
        let Some(count) = self.count()? else { return Ok(0) };
        if let (Some(own), Some(above)) = (&mut self.above, above) {
            own.seen = above;
        }
        let new = count.saturating_sub(self.seen);
        (self.seen, self.looked, self.unread) = (count, Instant::now(), false);
        Ok(new)
    }

    /// The same when the last process has ended; `killed`: of SIGKILL.
    pub fn take_last(&mut self, killed: bool) -> Result<u64, Error> {
        let new = self.take()?;
        let Some(above) = &self.above else { return Ok(new) };
        let gone = new == 0 && self.count()?.is_none();
        // The kernel tells of a file once in ten milliseconds: the kill itself may have been kept back for ever.
        let written = self.unread || self.looked.elapsed() < RECENT;
        let grown = self.above().is_some_and(|now| now > above.seen);
        Ok(new + u64::from(gone && killed && written && grown))
    }

    fn above(&self) -> Option<u64> {
        count(&self.above.as_ref()?.events).ok()
    }

    /// Whether the file was written to.
    fn drain(&self) -> Result<bool, Error> {
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut written = false;
        loop {
            match reader.next() {
                Ok(event) => written |= event.events().contains(ReadFlags::MODIFY),
                Err(Errno::AGAIN) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(source) => return Err(super::io("read the notifications of", &self.part, EVENTS, source)),
            }
        }
    }

    /// None where the cgroup has gone.
    fn count(&self) -> Result<Option<u64>, Error> {
        match count(&self.events) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::NODEV) => Ok(None),
            Err(source) => Err(super::io("read", &self.part, EVENTS, source)),
        }
    }
}

/// `oom_kill`, those of cgroups below included.
fn count(events: &OwnedFd) -> rustix::io::Result<u64> {
    let mut text = [0; 512];
    let length = rustix::io::pread(events, &mut text, 0)?;
    Ok(Keyed::parse(&String::from_utf8_lossy(&text[..length])).get("oom_kill"))
}
