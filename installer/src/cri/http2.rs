//! One unary gRPC call over HTTP/2 without TLS (RFC 9113): a request of two frames, an answer of a few.

use std::io::{self, Read, Write};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most that an answer may have; containerd's verbose status is a few ten thousand bytes.
const LIMIT: usize = 16 << 20;
/// The most that a frame has unless we ask for more.
const FRAME: usize = 16 << 10;
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Calls a method and gives back the message of its answer; none where it answered with a status alone, which is an
/// error of gRPC.
pub(super) fn unary(mut stream: impl Read + Write, method: &str, request: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let window = u32::try_from(LIMIT).unwrap_or(u32::MAX).to_be_bytes();
    let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
    settings.extend(window);
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &settings));
    hello.extend(frame(WINDOW_UPDATE, 0, 0, &window));
    hello.extend(frame(HEADERS, END_HEADERS, STREAM, &headers(method)));
    let mut body = vec![0];
    body.extend(u32::try_from(request.len()).map_err(io::Error::other)?.to_be_bytes());
    body.extend(request);
    hello.extend(frame(DATA, END_STREAM, STREAM, &body));
    stream.write_all(&hello)?;

    let mut answer = Vec::new();
    loop {
        let frame = read_frame(&mut stream)?;
        let ours = frame.stream == STREAM;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => stream.write_all(&self::frame(SETTINGS, ACK, 0, &[]))?,
            PING if frame.flags & ACK == 0 => stream.write_all(&self::frame(PING, ACK, 0, &frame.payload))?,
            DATA if ours => answer.extend(unpadded(&frame)?),
            // The header lists are not decoded: an answer without a message says enough.
            HEADERS | CONTINUATION | DATA => {}
            RESET if ours => return Err(malformed("the stream was reset")),
            GO_AWAY => return Err(malformed("the connection was ended")),
            _ => {}
        }
        if answer.len() > LIMIT {
            return Err(malformed("the answer is too long"));
        }
        if ours && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            return message(&answer);
        }
    }
}

/// gRPC's frame around a message.
fn message(answer: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some((head, message)) = answer.split_at_checked(5) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || usize::try_from(length).ok() != Some(message.len()) {
        return Err(malformed("the answer is not one plain message"));
    }
    Ok(Some(message.to_vec()))
}

/// A header list in HPACK's simplest form: literals that nobody has to remember.
fn headers(method: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            // Seven bits of length: every one of these is shorter than 127 bytes.
            block.push(u8::try_from(text.len()).unwrap_or(0));
            block.extend(text.as_bytes());
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if length > FRAME {
        return Err(malformed("a frame is too long: is this a gRPC socket?"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        payload,
    })
}

fn unpadded(frame: &Frame) -> io::Result<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Ok(&frame.payload);
    }
    let padding = frame.payload.first().copied().map(usize::from);
    let end = padding.and_then(|padding| frame.payload.len().checked_sub(padding));
    end.and_then(|end| frame.payload.get(1..end))
        .ok_or_else(|| malformed("a frame has more padding than bytes"))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, Read, Write};

    use super::{ACK, DATA, END_STREAM, HEADERS, PADDED, PING, SETTINGS, frame, unary};

    /// Says what it is given to say, whatever it hears.
    struct Peer(Cursor<Vec<u8>>);

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn call(frames: &[Vec<u8>]) -> io::Result<Option<Vec<u8>>> {
        unary(Peer(Cursor::new(frames.concat())), "/x.Y/Z", &[])
    }

    #[test]
    fn an_answer_is_put_together_from_its_frames() {
        let answer = call(&[
            frame(SETTINGS, 0, 0, &[]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(PING, 0, 0, &[0; 8]),
            frame(HEADERS, 4, 1, b"ignored"),
            frame(DATA, 0, 1, &[0, 0, 0, 0, 3, b'a']),
            frame(DATA, PADDED, 1, &[2, b'b', b'c', 0, 0]),
            frame(HEADERS, 4 | END_STREAM, 1, b"ignored"),
        ]);
        assert_eq!(answer.unwrap().unwrap(), b"abc");
    }

    #[test]
    fn a_status_without_a_message_is_no_answer() {
        assert_eq!(call(&[frame(HEADERS, 4 | END_STREAM, 1, b"x")]).unwrap(), None);
    }

    #[test]
    fn what_is_no_http2_is_an_error() {
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Vec::new(),
            frame(DATA, PADDED | END_STREAM, 1, &[9, 1]),
            frame(DATA, END_STREAM, 1, &[1, 0, 0, 0, 0]),
            frame(7, 0, 0, &[0; 8]),
        ] {
            assert!(call(&[bytes]).is_err());
        }
    }
}
