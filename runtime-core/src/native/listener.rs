//! Who answers for the calls that a filter asks about: the agent of the OCI spec's `listenerPath`, or our own recorder.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde_json::json;

use super::container::Container;
use super::lifecycle_hooks::state_of;
use super::wire::{self, Message, Tag};
use super::{Error, io as failed};
use crate::plan::Listener;
use crate::sys::{message, seccomp};

/// How long an agent may take to take a listener.
const AGENT_LIMIT: Duration = Duration::from_secs(10);

/// Which process a listener is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Init,
    Exec,
}

/// In the process that has just got under its filter: hands the listener to the shim and waits until it is in good
/// hands. Nothing but a write and a read, both marked: every other call may be asked about already, and nobody would
/// answer.
pub(super) fn hand_over(listener: OwnedFd, socket: &OwnedFd) -> io::Result<()> {
    use std::os::fd::IntoRawFd as _;
    // Closed by the execve: closing is a call, too.
    let number = listener.into_raw_fd();
    let mut message = [Tag::Listener as u8, 0, 0, 0, 0];
    message[1..].copy_from_slice(&number.to_ne_bytes());
    seccomp::write_marked(socket, &message)?;
    match seccomp::read_marked(socket)? {
        Some(tag) if tag == Tag::Go as u8 => Ok(()),
        _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

impl Container {
    /// In the shim: takes the listener that `message` tells of from the process, gives it to who is to have it, and
    /// lets the process go on.
    pub(super) fn take_listener(
        &self,
        message: &Message,
        of: Of,
        pid: i32,
        pidfd: &OwnedFd,
        socket: &OwnedFd,
    ) -> Result<(), Error> {
        let number = <[u8; 4]>::try_from(message.payload.as_slice()).map(i32::from_ne_bytes);
        let number = number.map_err(|_| Error::Setup("a listener without its number".to_owned()))?;
        let listener = rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty())
            .map_err(|errno| failed("linux.seccomp: taking the listener (pidfd_getfd)")(errno.into()))?;
        match (&self.listener, &self.recorder) {
            (Some(Listener::Agent { path, metadata }), _) => {
                let state = self.process_state(of, pid, metadata);
                send_to_agent(path, &state, &listener).map_err(|source| Error::Agent {
                    path: path.clone(),
                    source,
                })?;
            }
            (Some(Listener::Recorder { .. }), Some(recorder)) => {
                recorder.listen(listener).map_err(failed("starting to record"))?;
            }
            _ => return Err(Error::Setup("a listener that nobody is to have".to_owned())),
        }
        // It may have been killed meanwhile: then its socket says so.
        let _ = wire::send(socket, Tag::Go, &[], &[]);
        Ok(())
    }

    /// The OCI spec's "container process state" (config-linux.md), to the letter as runc has it: a container whose init
    /// is not yet its program is being created.
    fn process_state(&self, of: Of, pid: i32, metadata: &str) -> Vec<u8> {
        let status = match of {
            Of::Init => "creating",
            Of::Exec => "running",
        };
        let state: serde_json::Value =
            serde_json::from_slice(&state_of(&self.container, status, self.init)).unwrap_or_default();
        let mut document = json!({
            "ociVersion": crate::host::OCI_VERSION_MAX,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if !metadata.is_empty() {
            document["metadata"] = metadata.into();
        }
        document.to_string().into_bytes()
    }
}

/// One connection, one message, one fd beside it.
fn send_to_agent(path: &Path, state: &[u8], listener: &OwnedFd) -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(AGENT_LIMIT))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    message::send_stream(&socket, state, &[listener.as_fd()])
}
