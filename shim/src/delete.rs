//! The `delete` action: containerd cleans up after a container, whether its shim still lives or not.
//!
//! It is called on ordinary deletion as well, and containerd waits for it: it has to end at once where nothing is left.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;
use runtime_core::native;

use crate::args::Args;
use crate::container::exit::Exit;
use crate::start::{ADDRESS_FILE, JOINED_FILE, socket};
use crate::timestamp;

/// Why cleaning up failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bundle was given and there is no working directory.
    #[error("read the working directory")]
    WorkingDirectory(#[source] io::Error),
    /// Something of the container stays.
    #[error("clean up the container of {bundle}")]
    Clean {
        /// The bundle directory.
        bundle: String,
        /// What stays, and why.
        source: native::Error,
    },
    /// The dead shim's socket stays.
    #[error("clean up the socket")]
    Socket(#[from] socket::Error),
    /// containerd does not listen.
    #[error("write the answer to stdout")]
    Answer(#[source] io::Error),
}

/// Runs the action. Idempotent.
pub fn run(args: &Args) -> Result<(), Error> {
    let bundle = match args.bundle.as_str() {
        "" => std::env::current_dir().map_err(Error::WorkingDirectory)?,
        bundle => PathBuf::from(bundle),
    };
    let cleaned = native::clean(&bundle);
    // The socket goes whatever happened to the container; the container's error is the one to report.
    let socket = remove_socket(&bundle);
    let cleaned = cleaned.map_err(|source| Error::Clean {
        bundle: bundle.display().to_string(),
        source,
    })?;
    socket?;

    let exit = Exit::read(&bundle);
    let (pid, status, at) = match exit {
        Some((pid, exit)) => (pid, exit.status, exit.at),
        None => (
            cleaned.pid.unwrap_or(0) as u32,
            128 + libc::SIGKILL as u32,
            SystemTime::now(),
        ),
    };
    let response = DeleteResponse {
        pid,
        exit_status: status,
        exited_at: timestamp::message(at),
        ..DeleteResponse::default()
    };
    let response = response
        .write_to_bytes()
        .expect("a message of numbers can always be encoded");
    io::stdout().lock().write_all(&response).map_err(Error::Answer)
}

fn remove_socket(bundle: &Path) -> Result<(), socket::Error> {
    // With the container that the shim was started for, or by the record, the socket goes. To find out here whether the
    // shim lives, as it does when one container of its pod is deleted, would take a fifth of a second.
    if bundle.join(JOINED_FILE).exists() {
        return Ok(());
    }
    // A shim that lives, with the pod's other containers, keeps its socket; one that ended in good order removed it.
    if let Ok(address) = std::fs::read_to_string(bundle.join(ADDRESS_FILE))
        && let Some(path) = address.strip_prefix("unix://")
    {
        socket::remove_stale(Path::new(path))?;
    }
    Ok(())
}
