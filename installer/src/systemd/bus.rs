//! A connection that speaks D-Bus: authenticated by uid, one call at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::message::{self, Call, Kind, Value};

/// How long a call may take. RestartUnit answers when the job is queued.
const PATIENCE: Duration = Duration::from_secs(30);
const DESTINATION: &str = "org.freedesktop.systemd1";

pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects; with a bus daemon in between it has to be greeted.
    pub(super) fn connect(path: &Path, is_bus: bool) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self { stream, serial: 0 };
        bus.authenticate()?;
        if is_bus {
            let hello = Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                arguments: &[],
            };
            bus.send(&hello)?.map_err(io::Error::other)?;
        }
        Ok(bus)
    }

    /// SASL's EXTERNAL: the kernel tells the other side who we are, the uid in hexadecimal digits of its decimal ones.
    ///
    /// BEGIN goes along at once. Sent after the OK, systemd may read it in one piece with the first message, which it
    /// then forgets until another one comes (seen with systemd 252 on its private socket).
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no D-Bus socket"));
            }
        }
        if !line.starts_with(b"OK ") {
            let words = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        Ok(())
    }

    /// Calls a method of systemd with strings; its first result, or the words of its error.
    pub(super) fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[&str],
    ) -> io::Result<Result<Value, String>> {
        self.send(&Call {
            destination: DESTINATION,
            path,
            interface,
            member,
            arguments,
        })
    }

    fn send(&mut self, call: &Call<'_>) -> io::Result<Result<Value, String>> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial))?;
        // Signals and answers to nobody are passed over.
        loop {
            let message = message::read(&mut self.stream)?;
            if message.reply_to != Some(self.serial) {
                continue;
            }
            match message.kind {
                Kind::Return => return Ok(Ok(message.first)),
                Kind::Error => {
                    let words = match message.first {
                        Value::Text(text) => text,
                        _ => message.error_name.unwrap_or_default(),
                    };
                    return Ok(Err(words));
                }
                Kind::Other => {}
            }
        }
    }
}
