//! Why a process's streams could not be set up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a process's streams could not be set up. Paths and URIs are shown escaped, and cut where they are very long.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stream's URI cannot be understood.
    #[error("stream URI {uri}: {reason}")]
    Uri {
        /// The URI, escaped and cut.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stream's URI has a scheme that nobody here knows.
    #[error("stream URI {uri}: scheme {scheme} is not known: fifo, file, binary and binary-v2 are, and a FIFO's path")]
    Scheme {
        /// The URI, escaped and cut.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
    /// The stream cannot be of this kind.
    #[error("{stream} cannot be {uri}: {reason}")]
    Unfit {
        /// stdin, stdout or stderr.
        stream: &'static str,
        /// The URI, escaped and cut.
        uri: String,
        /// Why not.
        reason: &'static str,
    },
    /// A FIFO cannot be opened: most often, it is missing.
    #[error("open FIFO {path:?}")]
    Fifo {
        /// The FIFO.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What should be a FIFO is something else.
    #[error("{path:?} is a {kind}, not a FIFO")]
    NotAFifo {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A log file cannot be opened or created.
    #[error("{operation} log file {path:?}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What should be a log file is something that output cannot be appended to.
    #[error("log file {path:?} is a {kind}")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A logging program cannot be started, or broke off.
    #[error("{operation} logging program {program:?}")]
    Logger {
        /// What was tried.
        operation: &'static str,
        /// Its path.
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A logging program did not say in time that it is ready.
    #[error("logging program {program:?} did not say within {limit:?} that it is ready")]
    LoggerSilent {
        /// Its path.
        program: PathBuf,
        /// How long we waited.
        limit: Duration,
    },
    /// A logging program ended, or closed its readiness pipe, without saying that it is ready.
    #[error("logging program {program:?} never said that it is ready")]
    LoggerNotReady {
        /// Its path.
        program: PathBuf,
    },
    /// The kernel refused a pipe, or its registration.
    #[error("{operation} for {stream}")]
    Pipe {
        /// What was tried.
        operation: &'static str,
        /// stdin, stdout, stderr or console.
        stream: &'static str,
        #[source]
        source: io::Error,
    },
}

/// `text` as it can be shown in a message: escaped, and not longer than a line or two.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
