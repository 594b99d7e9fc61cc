//! What a container's init and its exec'd processes have in common.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use runtime_core::backend;
use tokio::io::Interest;
use tokio::sync::MutexGuard;

use super::exit::{Exit, UNKNOWN_STATUS};
use crate::io::watch::watch;
use crate::io::{self, Io};
use crate::reaper::Child;

/// Where a process's streams are, as containerd named them.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// How waiting for a process ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// It ran and ended.
    Exited(Exit),
    /// It could not be started.
    NeverRan,
    /// It was deleted before anybody started it.
    NotStarted,
}

/// One process of a container, from before it exists until it is deleted.
#[derive(Debug)]
pub struct Process {
    /// Where its streams are.
    pub streams: Streams,
    runtime: OnceLock<Arc<dyn backend::Process>>,
    io: Mutex<Option<Io>>,
    outcome: tokio::sync::watch::Sender<Option<Outcome>>,
    /// Held while the process is being started, until its start was published: its exit is told only afterwards.
    starting: tokio::sync::Mutex<()>,
}

impl Process {
    /// A process that does not exist yet.
    pub fn new(streams: Streams) -> Self {
        Self {
            streams,
            runtime: OnceLock::new(),
            io: Mutex::default(),
            outcome: tokio::sync::watch::Sender::new(None),
            starting: tokio::sync::Mutex::default(),
        }
    }

    /// The process exists now. Its end of the streams is `io`.
    pub fn launched(&self, runtime: Arc<dyn backend::Process>, io: Io) {
        if self.runtime.set(runtime).is_ok() {
            *self.io() = Some(io);
        }
    }

    /// The process, once it exists.
    pub fn runtime(&self) -> Option<&Arc<dyn backend::Process>> {
        self.runtime.get()
    }

    /// Its pid; zero before it exists.
    pub fn pid(&self) -> u32 {
        self.runtime().map_or(0, |process| process.pid() as u32)
    }

    /// Holds its exit back for as long as the guard lives.
    pub async fn hold_exit(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().await
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        *self.outcome.borrow()
    }

    /// Its exit, if it ran and ended.
    pub fn exit(&self) -> Option<Exit> {
        match self.outcome() {
            Some(Outcome::Exited(exit)) => Some(exit),
            Some(Outcome::NeverRan | Outcome::NotStarted) | None => None,
        }
    }

    /// Unblocks everybody who waits for it.
    pub fn set_outcome(&self, outcome: Outcome) {
        if let Some(io) = self.io().as_ref() {
            io.process_ended();
        }
        self.outcome.send_replace(Some(outcome));
    }

    /// Waits until it has ended, or is known never to run.
    pub async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        // The sender is part of `self`: it cannot go away meanwhile.
        let ended = outcome
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| *outcome);
        ended.unwrap_or(Outcome::NeverRan)
    }

    /// Sets the size of its console; nothing to do without one.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), io::Error> {
        self.io().as_ref().map_or(Ok(()), |io| io.resize(rows, columns))
    }

    /// It starts: from now on its client's input reaches it.
    pub fn starts(&self) -> Result<(), io::Error> {
        self.io().as_mut().map_or(Ok(()), Io::process_starts)
    }

    /// Closes the shim's own writer of its stdin.
    pub fn close_stdin(&self) {
        if let Some(io) = self.io().as_mut() {
            io.close_stdin();
        }
    }

    /// Waits until what it wrote was copied, `limit` at most, then closes its streams.
    pub async fn drain(&self, limit: Duration) {
        let io = self.io().take();
        if let Some(mut io) = io {
            io.drain(limit).await;
        }
    }

    fn io(&self) -> std::sync::MutexGuard<'_, Option<Io>> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a child and reaps it.
///
/// At once and not only when somebody wants to know: a PID namespace's init does not end for us before every process
/// that was exec'd beside it has been reaped.
pub async fn reap(process: Arc<dyn backend::Process>, child: Child) -> Exit {
    let pid = process.pid();
    let ended = ended(process).await;
    drop(child);
    let status = match ended {
        Ok(status) => status.code(),
        Err(error) => {
            log::error!("wait for process {pid}: {}", crate::service::errors::chain(&error));
            UNKNOWN_STATUS
        }
    };
    Exit {
        status,
        at: SystemTime::now(),
    }
}

async fn ended(process: Arc<dyn backend::Process>) -> Result<backend::ExitStatus, backend::Error> {
    /// What the kernel's memory shortage costs: an exit is seen this much later.
    const FALLBACK: Duration = Duration::from_millis(100);

    let pidfd = process
        .end()
        .try_clone()
        .and_then(|pidfd| watch(pidfd, Interest::READABLE));
    loop {
        // A readable pidfd stays readable: asking the kernel again after each wake-up is right and enough.
        let ready = match &pidfd {
            Ok(pidfd) => pidfd.readable().await.ok(),
            Err(_) => None,
        };
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        match ready {
            Some(mut ready) => ready.clear_ready(),
            None => tokio::time::sleep(FALLBACK).await,
        }
    }
}
