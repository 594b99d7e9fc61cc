//! D-Bus messages, as much of them as systemd's manager needs: written and read, pure (D-Bus specification, "Message
//! Protocol"). Only in the byte order of this machine, which is the other side's as well.

/// Longer ones are refused: what the manager says to us has a few hundred bytes.
const MAX_LENGTH: usize = 1 << 20;
/// `l` or `B`.
const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const VERSION: u8 = 1;
const NO_REPLY_EXPECTED: u8 = 1;
/// Everything before the fields of the header.
pub(super) const PREFIX: usize = 16;

/// Kinds of messages.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// A property and its value.
pub(in crate::cgroup) type Property = (&'static str, Value);

/// Bytes in D-Bus's layout; alignment counts from the start.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_ne_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// A string or an object's path.
    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length does not count the padding before its first element.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::U64(value) => self.u64(*value),
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.array(1, |out| out.bytes.extend(bytes)),
            Value::Numbers(numbers) => self.array(4, |out| numbers.iter().for_each(|number| out.u32(*number))),
            Value::Pairs(pairs) => self.array(8, |out| {
                for (first, second) in pairs {
                    out.align(8);
                    out.text(first);
                    out.text(second);
                }
            }),
        }
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[Property]) {
        self.array(8, |out| {
            for (name, value) in properties {
                out.align(8);
                out.text(name);
                out.variant(value);
            }
        });
    }

    /// An array of structures with nothing in it.
    pub fn no_structures(&mut self) {
        self.array(8, |_| ());
    }
}

/// A call to be sent.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// None where there is no bus between us and systemd.
    pub destination: Option<&'a str>,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub signature: &'a str,
    pub body: Writer,
    /// Whether anything is to come back.
    pub wants_reply: bool,
}

impl Call<'_> {
    pub fn to_bytes(&self, serial: u32) -> Vec<u8> {
        let mut out = Writer::default();
        let flags = if self.wants_reply { 0 } else { NO_REPLY_EXPECTED };
        out.bytes.extend([ORDER, CALL, flags, VERSION]);
        out.u32(self.body.bytes.len() as u32);
        out.u32(serial);
        out.array(8, |out| {
            let mut field = |code: u8, signature: &str, value: &str| {
                out.align(8);
                out.bytes.push(code);
                out.signature(signature);
                if signature == "g" {
                    out.signature(value);
                } else {
                    out.text(value);
                }
            };
            field(PATH, "o", self.path);
            field(INTERFACE, "s", self.interface);
            field(MEMBER, "s", self.member);
            if let Some(destination) = self.destination {
                field(DESTINATION, "s", destination);
            }
            if !self.signature.is_empty() {
                field(SIGNATURE, "g", self.signature);
            }
        });
        out.align(8);
        out.bytes.extend(&self.body.bytes);
        out.bytes
    }
}

/// A message that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    pub reply_to: Option<u32>,
    pub interface: String,
    pub member: String,
    pub error: String,
    pub signature: String,
    body: Vec<u8>,
}

/// What is wrong with bytes that should be a message.
pub(super) type Malformed = &'static str;

/// How long the whole message is whose first [`PREFIX`] bytes are given.
pub(super) fn length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
    if prefix[0] != ORDER {
        return Err("it has another byte order");
    }
    if prefix[3] != VERSION {
        return Err("it has another version of the protocol");
    }
    let number = |at: usize| u32::from_ne_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as usize;
    let (body, fields) = (number(4), number(12));
    if body > MAX_LENGTH || fields > MAX_LENGTH {
        return Err("it is longer than a megabyte");
    }
    Ok((PREFIX + fields).next_multiple_of(8) + body)
}

impl Message {
    /// Reads a whole message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let prefix = bytes.first_chunk::<PREFIX>().ok_or("it is too short")?;
        if length(prefix)? != bytes.len() {
            return Err("it has another length than it says");
        }
        let mut message = Self {
            kind: bytes[1],
            ..Self::default()
        };
        let mut reader = Reader { bytes, at: 12 };
        let end = reader.u32()? as usize + PREFIX;
        while reader.at < end {
            reader.align(8)?;
            let code = reader.u8()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (INTERFACE, "s") => message.interface = reader.text()?,
                (MEMBER, "s") => message.member = reader.text()?,
                (ERROR_NAME, "s") => message.error = reader.text()?,
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
                (SIGNATURE, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return Err("it has a header field of an unknown type"),
            }
        }
        reader.align(8)?;
        message.body = bytes.get(reader.at..).unwrap_or_default().to_vec();
        Ok(message)
    }

    /// The body, from its start.
    pub fn body(&self) -> Reader<'_> {
        Reader {
            bytes: &self.body,
            at: 0,
        }
    }
}

/// Reads values one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(count).ok_or("it ends too early")?;
        let taken = self.bytes.get(self.at..end).ok_or("it ends too early")?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let bytes = self.take(4)?.first_chunk().ok_or("it ends too early")?;
        Ok(u32::from_ne_bytes(*bytes))
    }

    /// A string or an object's path.
    pub fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = self.u8()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?.to_vec();
        if self.u8()? != 0 {
            return Err("a string does not end with NUL");
        }
        String::from_utf8(text).map_err(|_| "a string is not UTF-8")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message as systemd would send it.
    pub fn message(kind: u8, reply_to: Option<u32>, names: [&str; 3], signature: &str, body: Writer) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes.extend([ORDER, kind, 1, VERSION]);
        out.u32(body.bytes.len() as u32);
        out.u32(7);
        out.array(8, |out| {
            for (code, text) in [INTERFACE, MEMBER, ERROR_NAME].into_iter().zip(names) {
                if !text.is_empty() {
                    out.align(8);
                    out.bytes.push(code);
                    out.signature("s");
                    out.text(text);
                }
            }
            if let Some(serial) = reply_to {
                out.align(8);
                out.bytes.push(REPLY_SERIAL);
                out.signature("u");
                out.u32(serial);
            }
            out.align(8);
            out.bytes.push(SIGNATURE);
            out.signature("g");
            out.signature(signature);
        });
        out.align(8);
        out.bytes.extend(&body.bytes);
        out.bytes
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_call_has_the_bytes_that_the_specification_gives_it() {
        let mut body = Writer::default();
        body.text("a");
        let call = Call {
            destination: None,
            path: "/o",
            interface: "i.f",
            member: "M",
            signature: "s",
            body,
            wants_reply: true,
        };
        let expected = b"l\x01\0\x01\x06\0\0\0\x05\0\0\0\x37\0\0\0\
            \x01\x01o\0\x02\0\0\0/o\0\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x08\x01g\0\x01s\0\0\
            \x01\0\0\0a\0";
        assert_eq!(call.to_bytes(5), expected);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut body = Writer::default();
        body.u32(3);
        body.text("/job/3");
        body.text("a.scope");
        let bytes = message(SIGNAL, None, ["org.x.Manager", "JobRemoved", ""], "uos", body);
        let read = Message::parse(&bytes).unwrap();
        assert_eq!((read.kind, read.reply_to), (SIGNAL, None));
        assert_eq!((read.member.as_str(), read.signature.as_str()), ("JobRemoved", "uos"));
        let mut body = read.body();
        assert_eq!(body.u32(), Ok(3));
        assert_eq!(body.text().as_deref(), Ok("/job/3"));
        assert_eq!(body.text().as_deref(), Ok("a.scope"));
        assert_eq!(body.text(), Err("it ends too early"));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn properties_are_aligned_as_the_specification_wants_it() {
        let mut out = Writer::default();
        out.text("x");
        out.properties(&[("A", Value::U64(1)), ("B", Value::Numbers(vec![7]))]);
        let expected: &[u8] = b"\x01\0\0\0x\0\0\0\
            \x2c\0\0\0\0\0\0\0\
            \x01\0\0\0A\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
            \x01\0\0\0B\0\x02au\0\0\0\x04\0\0\0\x07\0\0\0";
        assert_eq!(out.bytes, expected);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn a_damaged_message_is_read_or_refused(at in 0usize..120, byte in any::<u8>(), cut in 0usize..120) {
            let mut body = Writer::default();
            body.text("org.freedesktop.systemd1.UnitExists");
            let names = ["", "", "org.freedesktop.systemd1.UnitExists"];
            let mut bytes = message(ERROR, Some(2), names, "s", body);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut % bytes.len());
            if let Ok(message) = Message::parse(&bytes) {
                let _ = message.body().text();
            }
        }
    }
}
