//! A process in a sentry: a container's first one, or one that was exec'd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::control::Control;
use super::sandbox::Sandbox;
use super::{Error, failing};
use crate::native::{self, ExitStatus};

/// `runsc/boot`'s methods and their arguments.
pub(super) const WAIT: &str = "containerManager.Wait";
pub(super) const WAIT_PID: &str = "containerManager.WaitPID";
const SIGNAL: &str = "containerManager.Signal";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SignalArgs<'a> {
    #[serde(rename = "CID")]
    container: &'a str,
    signo: i32,
    #[serde(rename = "PID")]
    pid: i32,
    mode: u8,
}

/// SignalDeliveryMode of `runsc/boot`.
const TO_PROCESS: u8 = 0;
const TO_ALL: u8 = 1;

/// A process in a sentry. On the host it has no pid of its own: it goes by the sentry's.
#[derive(Debug)]
pub struct Process {
    sandbox: Arc<Sandbox>,
    container: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The root container's first process: it and the sentry end together, with the same status.
    Root(native::Process),
    /// Any other.
    Inside(Inside),
    /// An exec with a terminal: a runsc stands for it, that hands on the terminal's signals.
    Attached(native::Process),
}

#[derive(Debug)]
struct Inside {
    /// Readable once it has ended, or its sentry.
    end: OwnedFd,
    /// Written once its end is known.
    over: OwnedFd,
    sentry: OwnedFd,
    /// Its pid in the container; 0 for the container's first process.
    pid: i32,
    state: Mutex<Wait>,
}

#[derive(Debug, Default)]
struct Wait {
    /// Where the sentry will tell how it ended.
    answer: Option<Control>,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(super) fn root(sandbox: Arc<Sandbox>, container: String, sentry: native::Process) -> Self {
        Self {
            sandbox,
            container,
            kind: Kind::Root(sentry),
        }
    }

    pub(super) fn attached(sandbox: Arc<Sandbox>, container: String, runsc: native::Process) -> Self {
        Self {
            sandbox,
            container,
            kind: Kind::Attached(runsc),
        }
    }

    /// One that is told of by [`Process::follow`].
    pub(super) fn inside(sandbox: Arc<Sandbox>, container: String, pid: i32) -> Result<Self, Error> {
        let failed = |errno: rustix::io::Errno| failing("watching a process in the sentry")(errno.into());
        let end = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let over = eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
        let sentry = sandbox.pidfd().map_err(failing("duplicating the sentry's pidfd"))?;
        for fd in [&over, &sentry] {
            epoll::add(&end, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN).map_err(failed)?;
        }
        Ok(Self {
            sandbox,
            container,
            kind: Kind::Inside(Inside {
                end,
                over,
                sentry,
                pid,
                state: Mutex::default(),
            }),
        })
    }

    /// Takes the connection on which the sentry will tell of its end.
    pub(super) fn follow(&self, answer: Control) -> Result<(), Error> {
        let Kind::Inside(inside) = &self.kind else {
            return Ok(());
        };
        let failed = |errno: rustix::io::Errno| failing("watching a process in the sentry")(errno.into());
        // Locked before the event can come: whoever is woken by it has to find the connection.
        let mut state = inside.state();
        epoll::add(
            &inside.end,
            &answer,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN,
        )
        .map_err(failed)?;
        state.answer = Some(answer);
        Ok(())
    }

    /// Its pid on the host: the sentry's, or that of the runsc that stands for it.
    pub fn pid(&self) -> i32 {
        match &self.kind {
            Kind::Root(process) | Kind::Attached(process) => process.pid(),
            Kind::Inside(_) => self.sandbox.process_id().map_or(0, |id| id.pid),
        }
    }

    /// Readable once it has ended.
    pub fn end(&self) -> &OwnedFd {
        match &self.kind {
            Kind::Root(process) | Kind::Attached(process) => process.pidfd(),
            Kind::Inside(inside) => &inside.end,
        }
    }

    /// Sends a signal; Ok(false) where it has ended.
    pub fn signal(&self, signal: i32) -> Result<bool, Error> {
        match &self.kind {
            // It hands on what it gets; but this one would end it alone.
            Kind::Attached(runsc) if signal != libc::SIGKILL => runsc.signal(signal).map_err(|error| Error::Io {
                operation: "sending a signal",
                source: std::io::Error::other(error),
            }),
            Kind::Attached(_) => self.deliver(signal, 0, TO_PROCESS),
            Kind::Root(_) => self.deliver(signal, 0, TO_PROCESS),
            Kind::Inside(inside) => self.deliver(signal, inside.pid, TO_PROCESS),
        }
    }

    /// Sends a signal to every process of its container.
    pub(super) fn signal_all(&self, signal: i32) -> Result<bool, Error> {
        self.deliver(signal, 0, TO_ALL)
    }

    fn deliver(&self, signal: i32, pid: i32, mode: u8) -> Result<bool, Error> {
        if self.try_wait()?.is_some() {
            return Ok(false);
        }
        let arguments = SignalArgs {
            container: &self.container,
            signo: signal,
            pid,
            mode,
        };
        match self.sandbox.call::<IgnoredAny>(SIGNAL, arguments) {
            Ok(_) => Ok(true),
            // It ended while it was asked for, or the whole sentry did.
            Err(error) if error.is_hung_up() || self.sandbox.has_ended() => Ok(false),
            Err(Error::Sentry { text, .. }) if text.contains("no such process") || text.contains("not found") => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a container's first process that was never started.
    pub(super) fn end_unstarted(&self, signal: i32) -> Result<bool, Error> {
        match &self.kind {
            Kind::Root(_) | Kind::Attached(_) => self.sandbox.kill(),
            Kind::Inside(inside) => {
                let mut state = inside.state();
                if state.ended.is_some() {
                    return Ok(false);
                }
                state.ended = Some(ExitStatus::Signal(signal));
                inside.tell()?;
                Ok(true)
            }
        }
    }

    /// How it ended, if it has. May be asked again.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        match &self.kind {
            Kind::Root(process) | Kind::Attached(process) => process.try_wait().map_err(|error| Error::Io {
                operation: "waiting for the sentry",
                source: std::io::Error::other(error),
            }),
            Kind::Inside(inside) => inside.try_wait(),
        }
    }
}

impl Inside {
    fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        let mut state = self.state();
        if state.ended.is_some() {
            return Ok(state.ended);
        }
        if let Some(answer) = state.answer.as_mut() {
            match answer.answer::<u32>(WAIT, RecvFlags::DONTWAIT) {
                Ok(Some(status)) => state.ended = Some(of_wait_status(status)),
                Ok(None) => {}
                // The sentry has gone without a word: it was killed, and all that was in it.
                Err(Error::Control { .. }) => state.ended = Some(ExitStatus::Signal(libc::SIGKILL)),
                Err(error) => return Err(error),
            }
        }
        if state.ended.is_none() && is_readable(self.sentry.as_fd()) {
            state.ended = Some(ExitStatus::Signal(libc::SIGKILL));
        }
        if state.ended.is_some() && state.answer.take().is_some() {
            // The connection goes at once: a sentry that ends waits fifteen seconds for those that are open. `end`
            // stays readable.
            self.tell()?;
        }
        Ok(state.ended)
    }

    /// Makes `end` readable, for good.
    fn tell(&self) -> Result<(), Error> {
        rustix::io::write(&self.over, &1u64.to_ne_bytes())
            .map(drop)
            .map_err(|errno| failing("telling of a process's end")(errno.into()))
    }

    fn state(&self) -> MutexGuard<'_, Wait> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// wait(2)'s status, as the sentry tells it.
fn of_wait_status(status: u32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Code((status >> 8 & 0xff) as i32),
        signal => ExitStatus::Signal(signal as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_says_how_a_process_ended() {
        assert_eq!(of_wait_status(7 << 8), ExitStatus::Code(7));
        assert_eq!(of_wait_status(0), ExitStatus::Code(0));
        assert_eq!(of_wait_status(9), ExitStatus::Signal(9));
        assert_eq!(of_wait_status(11 | 0x80), ExitStatus::Signal(11));
    }

    #[test]
    fn a_signal_is_told_in_the_sentry_s_own_terms() {
        let arguments = SignalArgs {
            container: "c1",
            signo: 15,
            pid: 3,
            mode: TO_ALL,
        };
        let text = serde_json::to_string(&arguments).unwrap();
        assert_eq!(text, r#"{"CID":"c1","Signo":15,"PID":3,"Mode":1}"#);
    }
}
