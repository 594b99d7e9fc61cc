//! A batch of nftables messages, which the kernel carries out as a whole or not at all.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::Error;
use super::rules::Message;

/// linux/netfilter/nfnetlink.h: the beginning and the end of a batch, and whose messages they are.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;

/// NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;

/// Bytes of struct nlmsghdr.
const HEADER: usize = 16;

/// Sends them all and hears how it went.
///
/// # Errors
/// [`Error::Refused`] with the first message's that the kernel does not want.
pub fn send(messages: Vec<Message>) -> Result<(), Error> {
    let last = messages.len() as u32;
    let mut bytes = Vec::new();
    push(
        &mut bytes,
        BATCH_BEGIN,
        REQUEST,
        0,
        (libc::AF_UNSPEC as u8, NFTABLES),
        &[],
    );
    for (message, number) in messages.iter().zip(1..) {
        // One answer says that all is done.
        let acknowledge = if number == last { ACKNOWLEDGE } else { 0 };
        let flags = REQUEST | message.flags | acknowledge;
        let family = (libc::NFPROTO_INET as u8, 0);
        push(
            &mut bytes,
            NFTABLES << 8 | message.kind,
            flags,
            number,
            family,
            &message.attributes.0,
        );
    }
    push(
        &mut bytes,
        BATCH_END,
        REQUEST,
        last + 1,
        (libc::AF_UNSPEC as u8, NFTABLES),
        &[],
    );

    let socket = open().map_err(failing("opening a netlink socket"))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    let sent = sendto(&socket, &bytes, SendFlags::empty(), &kernel);
    sent.map_err(|errno| failing("sending rules to the kernel")(errno.into()))?;
    loop {
        match answer(&socket).map_err(failing("hearing from the kernel"))? {
            // Where a batch fails, the answers to all of its messages are told in their order.
            (_, code) if code != 0 => return Err(Error::Refused(io::Error::from_raw_os_error(-code))),
            (number, _) if number == last => return Ok(()),
            _ => {}
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    // The kernel has answered by the time that the send returns; should it not, nobody waits for ever.
    let limit = Some(std::time::Duration::from_secs(10));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)?;
    Ok(socket)
}

/// struct nlmsghdr, struct nfgenmsg, attributes.
fn push(bytes: &mut Vec<u8>, kind: u16, flags: u16, number: u32, (family, whose): (u8, u16), attributes: &[u8]) {
    let length = (HEADER + 4 + attributes.len()) as u32;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(whose.to_be_bytes());
    bytes.extend(attributes);
}

/// The number of the message that the kernel answers, and its errno, negative; 0 is "done".
fn answer(socket: &OwnedFd) -> io::Result<(u32, i32)> {
    let mut bytes = vec![0; 8 << 10];
    let (length, _) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?;
    parse_answer(&bytes[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Each answer comes in a datagram of its own.
fn parse_answer(bytes: &[u8]) -> Option<(u32, i32)> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (kind == ERROR).then_some((number(8)?, number(HEADER)? as i32))
}

fn failing(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Netlink { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_error_message_and_nothing_else_is() {
        let mut bytes = vec![0_u8; 36];
        bytes[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(parse_answer(&bytes), Some((7, -17)));
        bytes[4] = 9;
        assert_eq!(parse_answer(&bytes), None);
        assert_eq!(parse_answer(&bytes[..10]), None);
    }
}
