//! What the shim, the holder and a starting process say to each other.
//!
//! Two sockets: *control* between shim and holder, for the holder's life, and one *process* socket between the shim and
//! each starting process, until its execve closes it. A message is one tag byte and a payload; fds travel beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::mounts::HierarchyView;
use crate::plan;
use crate::sys::message;

/// The holder's fds at its start, after the three standard streams of init.
pub const CONTROL_FD: i32 = 3;
/// Init's process socket.
pub const PROCESS_FD: i32 = 4;
/// A memfd with the [`Request`] as JSON.
pub const REQUEST_FD: i32 = 5;

/// What the holder is started with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Surroundings.
    pub container: plan::Container,
    /// Init.
    pub process: plan::Process,
}

/// The container's cgroups, as the holder is told of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// What the container may see.
    pub hierarchies: Vec<HierarchyView>,
    /// The last of the fds is a directory for CLONE_INTO_CGROUP.
    pub unified: bool,
}

/// Tags of messages. What each carries stands in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// shim → holder: the cgroups exist [JSON of a [`View`]; fds: join files, and
    /// perhaps a directory].
    Cgroups = b'c',
    /// holder → shim: a process was forked [its pid as text; fd: its pidfd]. On control for init, on the process socket
    /// for an exec.
    Forked = b'f',
    /// holder → shim: the same, of an exec that the container's cgroup would not take: the shim places it, and says
    /// [`Tag::Go`].
    ForkedOutside = b'o',
    /// holder → shim: namespaces and mounts stand, the root is not yet switched: runtime hooks may run [].
    Hooks = b'h',
    /// shim → holder, shim → process: go on [].
    Go = b'g',
    /// process → shim: ready for its execve, waiting for [`Tag::Go`] [].
    Ready = b'r',
    /// process → shim: the master of its pseudo terminal [fd].
    Console = b't',
    /// holder → shim: what of the mounts is not as it was meant [text, one a line].
    Differences = b'd',
    /// process → shim: it is under a filter that has a listener [number of the fd, four bytes]. It waits for
    /// [`Tag::Go`].
    Listener = b'l',
    /// holder or process → shim: it failed and ends [text].
    Failed = b'!',
    /// shim → holder: start a process [JSON of the process, or empty; fds: process socket, three streams, and a memfd
    /// with the JSON where the payload is empty].
    Exec = b'e',
    /// init → holder, within the container's set-up [fds: cgroup namespace, then one proc instance a proc mount].
    Instances = b'i',
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Cgroups,
            Self::Forked,
            Self::ForkedOutside,
            Self::Hooks,
            Self::Go,
            Self::Ready,
            Self::Console,
            Self::Differences,
            Self::Listener,
            Self::Failed,
            Self::Exec,
            Self::Instances,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub tag: Tag,
    /// What it says.
    pub payload: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// Sends one message.
pub fn send(socket: impl AsFd, tag: Tag, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(tag as u8);
    bytes.extend_from_slice(payload);
    message::send(socket, &bytes, fds)
}

/// Receives one message; None when the other side is gone.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let (bytes, fds) = message::receive(socket)?;
    match bytes.split_first() {
        None => Ok(None),
        Some((&tag, payload)) => {
            let tag = Tag::of(tag).ok_or_else(|| io::Error::other("a message of an unknown kind"))?;
            Ok(Some(Message {
                tag,
                payload: payload.to_vec(),
                fds,
            }))
        }
    }
}

/// Tells the other side why we end; text beyond a message's size is cut. It may be gone already: nobody is left to
/// hear.
pub fn report(socket: impl AsFd, text: &str) {
    let limit = text.len().min(message::MAX_BYTES - 1);
    let _ = send(socket, Tag::Failed, &text.as_bytes()[..limit], &[]);
}

/// `value` as JSON in a memfd, for what may be longer than a message.
pub fn memfd(value: &impl Serialize) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"nucleus", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    let bytes = serde_json::to_vec(value)?;
    io::Write::write_all(&mut file, &bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// Reads what [`memfd`] wrote.
pub fn from_memfd<T: for<'a> Deserialize<'a>>(fd: OwnedFd) -> io::Result<T> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
