//! D-Bus messages, little-endian: calls with strings as arguments, and of answers the first value.
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>

use std::io::{self, Read};

/// The specification's own limit.
const LIMIT: usize = 128 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) arguments: &'a [&'a str],
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    /// A signal, or a call of ours.
    Other,
}

/// The first value of a body; of a structure, its first member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u32),
    Nothing,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) reply_to: Option<u32>,
    pub(super) error_name: Option<String>,
    pub(super) first: Value,
}

impl Call<'_> {
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        for argument in self.arguments {
            put_text(&mut body, argument);
        }
        let mut fields = Vec::new();
        for (code, kind, text) in [
            (PATH, b'o', self.path),
            (INTERFACE, b's', self.interface),
            (MEMBER, b's', self.member),
            (DESTINATION, b's', self.destination),
        ] {
            pad(&mut fields, 8);
            fields.extend([code, 1, kind, 0]);
            put_text(&mut fields, text);
        }
        if !self.arguments.is_empty() {
            pad(&mut fields, 8);
            fields.extend([SIGNATURE, 1, b'g', 0]);
            fields.push(u8::try_from(self.arguments.len()).unwrap_or(0));
            fields.extend(self.arguments.iter().map(|_| b's'));
            fields.push(0);
        }
        let mut message = vec![b'l', CALL, 0, 1];
        message.extend(length(&body).to_le_bytes());
        message.extend(serial.to_le_bytes());
        message.extend(length(&fields).to_le_bytes());
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        message
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend(length(text.as_bytes()).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// Reads one message.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Message> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    if head[0] != b'l' {
        return Err(malformed());
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let size = |at| usize::try_from(number(at)).ok().filter(|&size| size <= LIMIT);
    let (body_size, fields_size) = size(4).zip(size(12)).ok_or_else(malformed)?;
    let mut fields = vec![0; fields_size.next_multiple_of(8)];
    stream.read_exact(&mut fields)?;
    let mut body = vec![0; body_size];
    stream.read_exact(&mut body)?;

    let mut message = Message {
        kind: match head[1] {
            RETURN => Kind::Return,
            ERROR => Kind::Error,
            _ => Kind::Other,
        },
        reply_to: None,
        error_name: None,
        first: Value::Nothing,
    };
    let mut signature = String::new();
    let mut reader = Reader {
        bytes: &fields[..fields_size],
        at: 0,
    };
    while reader.at < fields_size {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, reader.value(&kind)?) {
            (REPLY_SERIAL, Value::Number(serial)) => message.reply_to = Some(serial),
            (ERROR_NAME, Value::Text(name)) => message.error_name = Some(name),
            (SIGNATURE, Value::Text(text)) => signature = text,
            _ => {}
        }
    }
    let mut reader = Reader { bytes: &body, at: 0 };
    // What nobody waits for may have any form.
    if message.reply_to.is_some() && !signature.is_empty() {
        message.first = reader.value(&signature)?;
    }
    Ok(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(count).ok_or_else(malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| malformed())?;
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = self.byte()?.into();
        self.text(length)
    }

    /// The first value of a signature; what we never ask for is an error.
    fn value(&mut self, signature: &str) -> io::Result<Value> {
        match signature.bytes().next() {
            Some(b's' | b'o') => {
                let length = usize::try_from(self.number()?).map_err(|_| malformed())?;
                self.text(length).map(Value::Text)
            }
            Some(b'g') => self.signature().map(Value::Text),
            Some(b'u') => self.number().map(Value::Number),
            Some(b'v') => {
                let inner = self.signature()?;
                if inner.starts_with('v') {
                    return Err(malformed());
                }
                self.value(&inner)
            }
            Some(b'(') => {
                self.align(8);
                if signature[1..].starts_with('(') {
                    return Err(malformed());
                }
                self.value(&signature[1..])
            }
            _ => Err(malformed()),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a D-Bus message of another form")
}

#[cfg(test)]
mod tests {
    use super::{Call, Kind, Value, read};

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = Call {
            destination: "d.e",
            path: "/p",
            interface: "i.f",
            member: "M",
            arguments: &["ab", "c"],
        };
        let bytes = call.encode(7);
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(bytes[4..8], 14_u32.to_le_bytes(), "length of the body");
        assert_eq!(bytes[8..12], 7_u32.to_le_bytes());
        let fields = usize::try_from(u32::from_le_bytes(bytes[12..16].try_into().unwrap())).unwrap();
        assert_eq!(bytes.len(), (16 + fields).next_multiple_of(8) + 14);
        assert_eq!(bytes[16..27], [1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0]);
        assert!(bytes.ends_with(&[2, 0, 0, 0, b'a', b'b', 0, 0, 1, 0, 0, 0, b'c', 0]));
    }

    fn reply(kind: u8, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = vec![5, 1, b'u', 0, 9, 0, 0, 0, 8, 1, b'g', 0];
        fields.push(u8::try_from(signature.len()).unwrap());
        fields.extend(signature.as_bytes());
        fields.push(0);
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        message.extend(3_u32.to_le_bytes());
        message.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        message.extend(&fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn the_first_value_of_an_answer_is_read() {
        let text = [2, 0, 0, 0, b'/', b'x', 0];
        let job = [4, b'(', b'u', b'o', b')', 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, b'/', 0];
        let state = [1, b's', 0, 0, 2, 0, 0, 0, b'o', b'k', 0];
        for (signature, body, value) in [
            ("o", text.as_slice(), Value::Text("/x".to_owned())),
            ("v", &job, Value::Number(5)),
            ("v", &state, Value::Text("ok".to_owned())),
        ] {
            let message = read(&mut reply(2, signature, body).as_slice()).unwrap();
            assert_eq!((message.kind, message.reply_to), (Kind::Return, Some(9)));
            assert_eq!(message.first, value);
        }
        assert_eq!(read(&mut reply(3, "s", &text).as_slice()).unwrap().kind, Kind::Error);
    }

    #[test]
    fn broken_messages_are_errors() {
        let good = reply(2, "s", &[2, 0, 0, 0, b'/', b'x', 0]);
        for length in 0..good.len() {
            assert!(read(&mut &good[..length]).is_err(), "{length}");
        }
        for (at, byte) in [(0, b'B'), (7, 255), (15, 255), (18, b'y'), (28, b'v')] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(read(&mut bad.as_slice()).is_err(), "{at}");
        }
    }
}
