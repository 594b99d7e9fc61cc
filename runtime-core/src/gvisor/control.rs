//! The sentry's control socket: gVisor's `urpc`, which is one JSON object there and one back, with fds beside the first
//! (`pkg/urpc`; the methods are those of `runsc/boot/controller.go`, at [`super::MINIMUM`]).
//!
//! What answers is the side that may have been taken over: answers are bounded in size and time, and only ever read as
//! numbers and texts.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use crate::sys::message;

/// How long a sentry may take to answer what it can answer at once.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of an answer that are read.
const SIZE_LIMIT: usize = 1 << 20;

/// A connection to a sentry, for one call after another.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    read: Vec<u8>,
}

#[derive(Serialize)]
struct Call<'a, A> {
    method: &'a str,
    arg: A,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    err: String,
    #[serde(default)]
    result: Value,
}

impl Control {
    /// Connects to the sentry of `sandbox`, whose state is in `directory`.
    pub fn connect(directory: &Path, sandbox: &str) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        // Through the fd: a socket's path has 107 bytes at most (unix(7)), ours may have more.
        let path = format!("/proc/self/fd/{}/runsc-{sandbox}.sock", directory.as_raw_fd());
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
        set_socket_timeout(&socket, Timeout::Send, Some(LIMIT))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self {
            socket,
            read: Vec::new(),
        })
    }

    /// Asks and waits for the answer.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        arg: impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<R, Error> {
        self.ask(method, arg, fds)?;
        loop {
            if let Some(answer) = self.answer(method, RecvFlags::empty())? {
                return Ok(answer);
            }
        }
    }

    /// Asks; the answer is for [`Control::answer`].
    pub fn ask(&mut self, method: &'static str, arg: impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let text = serde_json::to_vec(&Call { method, arg }).map_err(|source| Error::Answer { method, source })?;
        message::send_stream(&self.socket, &text, fds).map_err(|source| Error::Control { method, source })
    }

    /// The answer, if all of it has come; None if not. With [`RecvFlags::DONTWAIT`] it never waits.
    ///
    /// # Errors
    /// [`Error::Sentry`] where the sentry refused; [`Error::Control`] of kind `UnexpectedEof` where it has ended.
    pub fn answer<R: DeserializeOwned>(&mut self, method: &'static str, flags: RecvFlags) -> Result<Option<R>, Error> {
        let failed = |source: io::Error| Error::Control { method, source };
        let mut buffer = [0; 4096];
        let length = match rustix::net::recv(&self.socket, &mut buffer, flags) {
            Ok((_, 0)) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok((_, length)) => length,
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(rustix::io::Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => return Ok(None),
            // The receive timeout of a blocking socket.
            Err(rustix::io::Errno::AGAIN) => return Err(failed(io::ErrorKind::TimedOut.into())),
            Err(rustix::io::Errno::CONNRESET) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(errno) => return Err(failed(errno.into())),
        };
        self.read.extend_from_slice(&buffer[..length]);
        if self.read.len() > SIZE_LIMIT {
            return Err(failed(io::Error::other("the answer is too long")));
        }
        parse(&mut self.read, method)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes one answer out of what was read.
fn parse<R: DeserializeOwned>(read: &mut Vec<u8>, method: &'static str) -> Result<Option<R>, Error> {
    let senseless = |source| Error::Answer { method, source };
    let mut answers = serde_json::Deserializer::from_slice(read).into_iter::<Answer>();
    let answer = match answers.next() {
        None => return Ok(None),
        Some(Err(error)) if error.is_eof() => return Ok(None),
        Some(answer) => answer.map_err(senseless)?,
    };
    let used = answers.byte_offset();
    read.drain(..used);
    if !answer.success {
        return Err(Error::Sentry {
            method,
            text: answer.err,
        });
    }
    serde_json::from_value(answer.result).map(Some).map_err(senseless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let mut read = br#"{"success":true,"err":"","res"#.to_vec();
        assert_eq!(parse::<u32>(&mut read, "m").unwrap(), None);
        read.extend_from_slice(br#"ult":256}"#);
        assert_eq!(parse::<u32>(&mut read, "m").unwrap(), Some(256));
        assert!(read.is_empty());
    }

    #[test]
    fn a_refusal_is_told_in_the_sentry_s_words() {
        let mut read = br#"{"success":false,"err":"container \"c1\" not started","result":null}"#.to_vec();
        let error = parse::<()>(&mut read, "containerManager.Wait").unwrap_err().to_string();
        assert_eq!(
            error,
            "the sentry, asked for containerManager.Wait: container \"c1\" not started"
        );
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        for text in [
            "[]",
            "{}",
            r#"{"success":"yes"}"#,
            "}{",
            r#"{"success":true,"result":"x"}"#,
        ] {
            let mut read = text.as_bytes().to_vec();
            assert!(
                matches!(parse::<u32>(&mut read, "m"), Err(Error::Answer { .. })),
                "{text}"
            );
        }
    }
}
