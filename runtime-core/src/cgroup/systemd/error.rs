//! Why systemd could not be asked, or would not do.

use std::io;

/// Why systemd could not be asked, or would not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("systemd does not run here (there is no {0}): the cgroup driver systemd cannot be used")]
    NotBooted(String),
    #[error("cannot {operation} systemd at {socket}")]
    Io {
        operation: &'static str,
        socket: String,
        #[source]
        source: io::Error,
    },
    #[error("systemd at {socket} does not let us in: {answer:?}")]
    Refused { socket: String, answer: String },
    #[error("a message of systemd at {socket} makes no sense: {fault}")]
    Malformed { socket: String, fault: &'static str },
    #[error("systemd refuses {member} of {unit}: {text} ({name})")]
    Method {
        member: &'static str,
        unit: String,
        name: String,
        text: String,
    },
    #[error("systemd's job {job} of {unit} ended with {result:?} instead of \"done\"")]
    Job { job: String, unit: String, result: String },
    #[error("systemd's job {job} of {unit} has ended, and systemd did not say how")]
    Untold { job: String, unit: String },
    #[error("systemd has not answered {member} of {unit} after {seconds} s")]
    Timeout {
        member: &'static str,
        unit: String,
        seconds: u64,
    },
    #[error("systemd's job {job} of {unit} has not ended after {seconds} s")]
    JobTimeout { job: String, unit: String, seconds: u64 },
    #[error("systemd has a unit {unit} already")]
    Exists { unit: String },
}

impl Error {
    /// Whether what was asked was lost, as it is when systemd executes itself anew: the connection breaks, or the end
    /// of a job is told to nobody. Nothing is known of what was asked then. The bus says it in its own words.
    pub(super) fn is_broken(&self) -> bool {
        if matches!(self, Self::Untold { .. }) {
            return true;
        }
        const OF_THE_BUS: [&str; 4] = ["NoReply", "Disconnected", "ServiceUnknown", "NameHasNoOwner"];
        if let Self::Method { name, .. } = self {
            let name = name.strip_prefix("org.freedesktop.DBus.Error.");
            return name.is_some_and(|name| OF_THE_BUS.contains(&name));
        }
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
        let kinds = [BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Whether systemd is away, or too slow: it did not refuse anything.
    pub(in crate::cgroup) fn is_absence(&self) -> bool {
        let is_over = matches!(self, Self::Timeout { .. } | Self::JobTimeout { .. });
        is_over || self.is_late() || self.is_broken()
    }

    /// Whether the time was over.
    pub(super) fn is_late(&self) -> bool {
        use io::ErrorKind::{TimedOut, WouldBlock};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), TimedOut | WouldBlock))
    }

    /// Whether systemd answered with the error `name` of its own.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Method { name: own, .. } if own.rsplit('.').next() == Some(name))
    }
}
