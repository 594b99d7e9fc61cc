//! The v1 freezer (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

const STATE: &str = "freezer.state";
/// How long a freeze may take before it is given up: a process in an uninterruptible sleep cannot be frozen.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// The same where a freeze would only help.
const SHORT_LIMIT: Duration = Duration::from_millis(200);
/// Reads of the state before the cgroup is thawed for a moment. v1 does not reliably freeze a cgroup while processes
/// appear in it: those that forked in the wrong moment stay FREEZING until the next thaw (seen by runc up to Linux
/// 5.4).
const READS_BEFORE_THAW: u32 = 50;

impl V1 {
    fn freezer(&self) -> Result<&Directory, Error> {
        self.of_controller("freezer").ok_or(Error::NotMounted {
            controller: "freezer",
            setting: "the frozen state",
        })
    }

    pub fn freeze(&self) -> Result<(), Error> {
        self.freeze_within(FREEZE_LIMIT)
    }

    fn freeze_within(&self, limit: Duration) -> Result<(), Error> {
        let part = self.freezer()?;
        let begun = Instant::now();
        let result = poll_until_frozen(part, begun, limit);
        if result.is_err() {
            // A cgroup that is half frozen is worse than one that runs; the first error is the one to tell.
            part.try_write(STATE, "THAWED").ok();
        }
        result
    }

    pub fn thaw(&self) -> Result<(), Error> {
        self.freezer()?.write(STATE, "THAWED")
    }

    pub fn is_frozen(&self) -> Result<bool, Error> {
        let part = self.freezer()?;
        match part
            .read_if_there("freezer.self_freezing")?
            .as_deref()
            .map(str::trim_end)
        {
            // Asked to freeze: by us or by somebody at this very cgroup, rather than above it.
            Some("1") => Ok(part.read(STATE)?.trim_end() == "FROZEN"),
            Some(_) => Ok(false),
            None => Ok(false),
        }
    }

    /// Freezes if that is to be had quickly.
    pub(super) fn try_freeze(&self) {
        self.freeze_within(SHORT_LIMIT).ok();
    }

    /// Thaws what is frozen or about to be; a cgroup that is gone is neither.
    pub(super) fn thaw_if_frozen(&self) -> Result<(), Error> {
        let Some(part) = self.of_controller("freezer") else {
            return Ok(());
        };
        match part
            .read_if_there("freezer.self_freezing")?
            .as_deref()
            .map(str::trim_end)
        {
            Some("1") => match part.try_write(STATE, "THAWED") {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
                Err(error) => Err(part.write_error(STATE, "THAWED", error)),
            },
            _ => Ok(()),
        }
    }
}

fn poll_until_frozen(part: &Directory, begun: Instant, limit: Duration) -> Result<(), Error> {
    let mut pause = Duration::from_micros(10);
    for read in 1.. {
        part.write(STATE, "FROZEN")?;
        let text = part.read(STATE)?;
        let state = text.trim_end();
        if state == "FROZEN" {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            let milliseconds = begun.elapsed().as_millis();
            return Err(Error::FreezeTimeout {
                file: part.file(STATE),
                state: state.into(),
                milliseconds,
            });
        }
        if read % READS_BEFORE_THAW == 0 {
            part.write(STATE, "THAWED")?;
        }
        // The state has no notification: reading it is what makes the kernel look.
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(())
}
