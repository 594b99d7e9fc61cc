//! A connection to systemd's manager: its private socket, which needs no bus, or the system bus. Opened for one
//! operation and closed after it, so that an idle shim holds neither memory nor a connection that systemd would break
//! when it executes itself anew.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::error::Error;
use super::message::{Call, ERROR, Malformed, Message, PREFIX, RETURN, SIGNAL, Writer, length};

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const SERVICE: &str = "org.freedesktop.systemd1";
const BUS: &str = "org.freedesktop.DBus";
/// After so long without a word about a job systemd is asked for it: what it tells while it executes itself anew,
/// nobody hears.
const QUIET: Duration = Duration::from_millis(500);
/// The longest line of an authentication that makes sense.
const MAX_LINE: usize = 512;

/// Where systemd can be asked.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    /// Is there where systemd is PID 1 (sd_booted(3)).
    pub booted: PathBuf,
    /// systemd's own socket, for root alone.
    pub private: PathBuf,
    /// The system bus.
    pub bus: PathBuf,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            booted: "/run/systemd/system".into(),
            private: "/run/systemd/private".into(),
            bus: "/run/dbus/system_bus_socket".into(),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    socket: String,
    is_bus: bool,
    serial: u32,
    opened: Instant,
    deadline: Instant,
    /// Jobs that ended, and how, in the order in which systemd told of them.
    removed: Vec<(String, String)>,
}

impl Connection {
    /// Connects; everything that is done here is over at `deadline`.
    pub fn open(sockets: &Sockets, deadline: Instant) -> Result<Self, Error> {
        // Not everybody has the private socket, for example who is given the bus's alone. Where it is there and nobody
        // listens, systemd executes itself anew: the bus would keep what it is told until then, or lose it.
        let is_there = || sockets.private.exists();
        if is_there() || !sockets.bus.exists() {
            return Self::connect(&sockets.private, false, deadline);
        }
        // It takes the old socket away right before it makes the new one.
        std::thread::sleep(super::PAUSE);
        match is_there() {
            true => Self::connect(&sockets.private, false, deadline),
            false => Self::connect(&sockets.bus, true, deadline),
        }
    }

    fn connect(path: &Path, is_bus: bool, deadline: Instant) -> Result<Self, Error> {
        let socket = path.display().to_string();
        let stream = UnixStream::connect(path).map_err(|source| Error::Io {
            operation: "connect to",
            socket: socket.clone(),
            source,
        })?;
        let mut connection = Self {
            stream,
            socket,
            is_bus,
            serial: 0,
            opened: Instant::now(),
            deadline,
            removed: Vec::new(),
        };
        connection.authenticate()?;
        if is_bus {
            connection.join_bus()?;
        } else {
            connection.wake()?;
        }
        Ok(connection)
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let socket = self.socket.clone();
        move |source| Error::Io {
            operation,
            socket,
            source,
        }
    }

    fn malformed(&self, fault: Malformed) -> Error {
        Error::Malformed {
            socket: self.socket.clone(),
            fault,
        }
    }

    /// Says who we are: the kernel tells the other side that it is true.
    fn authenticate(&mut self) -> Result<(), Error> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let answer = self.line()?;
        if !answer.starts_with("OK ") {
            return Err(Error::Refused {
                socket: self.socket.clone(),
                answer,
            });
        }
        self.write(b"BEGIN\r\n")
    }

    /// Sends something long that nobody answers. sd-bus reads up to 256 bytes behind our BEGIN into the buffer of its
    /// authentication, and does not look there again before more comes (seen with systemd 252): a short call would lie
    /// there until we give up. Behind this it does not.
    fn wake(&mut self) -> Result<(), Error> {
        const MORE_THAN_IT_READS: usize = 1024;
        let mut body = Writer::default();
        body.text(&" ".repeat(MORE_THAN_IT_READS));
        self.serial += 1;
        let call = Call {
            destination: None,
            path: OBJECT,
            interface: "org.freedesktop.DBus.Peer",
            member: "Ping",
            signature: "s",
            body,
            wants_reply: false,
        };
        self.write(&call.to_bytes(self.serial))
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE {
                return Err(self.malformed("the answer to our authentication does not end"));
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// A bus passes on what we ask for alone: the ends of jobs.
    fn join_bus(&mut self) -> Result<(), Error> {
        self.call_bus("Hello", None)?;
        let rule = format!("type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'");
        self.call_bus("AddMatch", Some(&rule))?;
        self.call("Subscribe", "", "the manager", Writer::default()).map(drop)
    }

    fn call_bus(&mut self, member: &'static str, argument: Option<&str>) -> Result<Message, Error> {
        let mut body = Writer::default();
        if let Some(argument) = argument {
            body.text(argument);
        }
        let call = Call {
            destination: Some(BUS),
            path: "/org/freedesktop/DBus",
            interface: BUS,
            member,
            signature: if argument.is_some() { "s" } else { "" },
            body,
            wants_reply: true,
        };
        self.send_and_wait(&call, member, "the bus")
    }

    /// Calls one of the manager's methods and waits for its answer. `unit` is for errors.
    pub fn call(&mut self, member: &'static str, signature: &str, unit: &str, body: Writer) -> Result<Message, Error> {
        let call = Call {
            destination: self.is_bus.then_some(SERVICE),
            path: OBJECT,
            interface: MANAGER,
            member,
            signature,
            body,
            wants_reply: true,
        };
        self.send_and_wait(&call, member, unit)
    }

    fn send_and_wait(&mut self, call: &Call<'_>, member: &'static str, unit: &str) -> Result<Message, Error> {
        self.serial += 1;
        let serial = self.serial;
        self.write(&call.to_bytes(serial))
            .map_err(|error| self.in_time(error, member, unit))?;
        loop {
            let message = self.receive().map_err(|error| self.in_time(error, member, unit))?;
            if message.reply_to != Some(serial) {
                continue;
            }
            match message.kind {
                RETURN => return Ok(message),
                ERROR => {
                    let text = match message.signature.starts_with('s') {
                        true => message.body().text().unwrap_or_default(),
                        false => String::new(),
                    };
                    return Err(Error::Method {
                        member,
                        unit: unit.to_owned(),
                        name: message.error,
                        text,
                    });
                }
                _ => return Err(self.malformed("an answer is neither a return nor an error")),
            }
        }
    }

    /// Waits for the end of `job`; how it ended, None where it ended and nobody told us how. It may have been told
    /// before the answer that names the job.
    pub fn await_job(&mut self, job: &str, unit: &str) -> Result<Option<String>, Error> {
        loop {
            if let Some(result) = self.told(job) {
                return Ok(Some(result));
            }
            let seconds = self.given().as_secs();
            let late = |error: Error| match error.is_late() {
                true => Error::JobTimeout {
                    job: job.to_owned(),
                    unit: unit.to_owned(),
                    seconds,
                },
                false => error,
            };
            if self.is_quiet().map_err(late)? {
                if !self.has_job(job, unit)? {
                    return Ok(self.told(job));
                }
                continue;
            }
            self.receive().map_err(late)?;
        }
    }

    /// How a job ended, if we were told.
    fn told(&mut self, job: &str) -> Option<String> {
        let at = self.removed.iter().position(|(own, _)| own == job)?;
        Some(self.removed.swap_remove(at).1)
    }

    /// Whether nothing comes for a while.
    fn is_quiet(&self) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            let left = self.left().map_err(self.io("hear from"))?;
            let left = left.min(QUIET.saturating_sub(begun.elapsed()));
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: left.subsec_nanos().into(),
            };
            match rustix::event::poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(true),
                Ok(_) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(source) => return Err(self.io("wait for")(source.into())),
            }
        }
    }

    /// Whether systemd still has a job.
    fn has_job(&mut self, job: &str, unit: &str) -> Result<bool, Error> {
        let number = job.rsplit('/').next().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| self.malformed("a job without a number"))?;
        let mut body = Writer::default();
        body.u32(number);
        match self.call("GetJob", "u", unit, body) {
            Err(error) if error.is("NoSuchJob") => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// One message; the end of a job is noted.
    fn receive(&mut self) -> Result<Message, Error> {
        let mut prefix = [0; PREFIX];
        self.read(&mut prefix)?;
        let length = length(&prefix).map_err(|fault| self.malformed(fault))?;
        let mut bytes = vec![0; length];
        bytes[..PREFIX].copy_from_slice(&prefix);
        self.read(&mut bytes[PREFIX..])?;
        let message = Message::parse(&bytes).map_err(|fault| self.malformed(fault))?;
        if message.kind == SIGNAL && message.interface == MANAGER && message.member == "JobRemoved" {
            let job = removed_job(&message).map_err(|fault| self.malformed(fault))?;
            self.removed.push(job);
        }
        Ok(message)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let mut read = || {
            self.stream.set_read_timeout(Some(self.left()?))?;
            self.stream.read_exact(bytes)
        };
        read().map_err(self.io("hear from"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut write = || {
            self.stream.set_write_timeout(Some(self.left()?))?;
            self.stream.write_all(bytes)
        };
        write().map_err(self.io("write to"))
    }

    fn in_time(&self, error: Error, member: &'static str, unit: &str) -> Error {
        if !error.is_late() {
            return error;
        }
        Error::Timeout {
            member,
            unit: unit.to_owned(),
            seconds: self.given().as_secs(),
        }
    }

    /// How long this connection had.
    fn given(&self) -> Duration {
        self.deadline.saturating_duration_since(self.opened)
    }
}

/// JobRemoved(u id, o job, s unit, s result).
fn removed_job(message: &Message) -> Result<(String, String), Malformed> {
    let mut body = message.body();
    body.u32()?;
    let job = body.text()?;
    body.text()?;
    Ok((job, body.text()?))
}
