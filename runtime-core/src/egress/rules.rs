//! The rules as nftables' own messages (linux/netfilter/nf_tables.h). Pure.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::attributes::Attributes;
use crate::policy::{Protocol, Reach};

/// Our table, in the family that sees IPv4 and IPv6.
const TABLE: &str = "nucleus";

/// One message of nftables: its number, the flags beside NLM_F_REQUEST, and what it says.
#[derive(Debug)]
pub struct Message {
    /// NFT_MSG_*.
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Behind struct nfgenmsg.
    pub attributes: Attributes,
}

const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

/// NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND.
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// NF_INET_FORWARD, NF_INET_LOCAL_OUT.
const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;

/// NF_DROP, NF_ACCEPT.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Registers: the verdict's, and one of 16 bytes.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;

/// A chain's name says what is in it: 64 bits of a hash over it.
pub fn chain_name(allowed: &[Reach]) -> String {
    let text: Vec<String> = allowed.iter().map(Reach::to_string).collect();
    let hash = Sha256::digest(text.join(";"));
    let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("egress-{digits}")
}

/// All that makes the rules, for one batch. It fails as a whole, with EEXIST, where the chain is there.
pub fn messages(allowed: &[Reach], chain: &str) -> Vec<Message> {
    let table = Message {
        kind: NEW_TABLE,
        flags: CREATE,
        attributes: Attributes::default().text(1, TABLE),
    };
    let forward = chain.replace("egress", "forward");
    let mut messages = vec![table, base_chain(chain, LOCAL_OUT), base_chain(&forward, FORWARD)];
    let mut rule = |comment: &str, expressions: Vec<Attributes>| messages.push(rule_of(chain, comment, expressions));
    rule(
        "loopback",
        [meta(OIFNAME), equal(&interface("lo")), vec![verdict(ACCEPT)]].concat(),
    );
    rule("answers", [answers(), vec![verdict(ACCEPT)]].concat());
    // Neighbour discovery, and reports of multicast membership, without which bridges do not carry it (RFC 4861, RFC
    // 3810).
    for (first, last) in [(133, 136), (143, 143)] {
        let icmp = [icmp6(), vec![payload(2, 0, 1)], between(&[first], &[last])].concat();
        rule("neighbours", [icmp, vec![verdict(ACCEPT)]].concat());
    }
    for reach in allowed {
        for protocol in protocols(reach) {
            let expressions = [
                destination(reach),
                transport(reach, protocol),
                vec![counter(), verdict(ACCEPT)],
            ];
            rule(&reach.to_string(), expressions.concat());
        }
    }
    rule("refused", vec![counter(), reject()]);
    messages
}

/// What nothing lets through is dropped.
fn base_chain(name: &str, hook: u32) -> Message {
    let hook = Attributes::default().number(1, hook).number(2, 0);
    let attributes = Attributes::default().text(1, TABLE).text(3, name).nested(4, hook);
    Message {
        kind: NEW_CHAIN,
        flags: CREATE | EXCLUSIVE,
        attributes: attributes.number(5, DROP).text(7, "filter"),
    }
}

fn rule_of(chain: &str, comment: &str, expressions: Vec<Attributes>) -> Message {
    let list = expressions
        .into_iter()
        .fold(Attributes::default(), |list, expression| list.nested(1, expression));
    // As nft(8) shows comments: type 0, length, text with its zero byte.
    let mut data = vec![0, (comment.len() + 1) as u8];
    data.extend(comment.as_bytes());
    data.push(0);
    let attributes = Attributes::default().text(1, TABLE).text(2, chain).nested(4, list);
    Message {
        kind: NEW_RULE,
        flags: CREATE | APPEND,
        attributes: attributes.bytes(7, &data),
    }
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nested(2, data)
}

const OIFNAME: u32 = 7;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;

fn meta(key: u32) -> Vec<Attributes> {
    vec![expression(
        "meta",
        Attributes::default().number(1, REGISTER).number(2, key),
    )]
}

fn compare(operation: u32, value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(1, value);
    let data = Attributes::default().number(1, REGISTER).number(2, operation);
    expression("cmp", data.nested(3, value))
}

fn equal(value: &[u8]) -> Vec<Attributes> {
    vec![compare(0, value)]
}

fn between(first: &[u8], last: &[u8]) -> Vec<Attributes> {
    const AT_MOST: u32 = 3;
    const AT_LEAST: u32 = 5;
    vec![compare(AT_LEAST, first), compare(AT_MOST, last)]
}

/// `value & mask`.
fn mask(mask: &[u8]) -> Attributes {
    let zero = Attributes::default().bytes(1, &vec![0; mask.len()]);
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, REGISTER)
        .number(3, mask.len() as u32);
    expression(
        "bitwise",
        data.nested(4, Attributes::default().bytes(1, mask)).nested(5, zero),
    )
}

/// Bytes of a header: of the network's (1) or of the transport's (2).
fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    let data = Attributes::default().number(1, REGISTER).number(2, base);
    expression("payload", data.number(3, offset).number(4, length))
}

fn verdict(code: u32) -> Attributes {
    let verdict = Attributes::default().nested(2, Attributes::default().number(1, code));
    expression("immediate", Attributes::default().number(1, VERDICT).nested(2, verdict))
}

fn counter() -> Attributes {
    expression("counter", Attributes::default())
}

/// An ICMP error that says "administratively prohibited": a connection fails at once instead of hanging.
fn reject() -> Attributes {
    const ICMPX: u32 = 2;
    expression("reject", Attributes::default().number(1, ICMPX).bytes(2, &[3]))
}

fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// What belongs to a connection that was let through, or that came from outside.
fn answers() -> Vec<Attributes> {
    const ESTABLISHED: u32 = 2;
    const RELATED: u32 = 4;
    const STATE: u32 = 0;
    const NOT_EQUAL: u32 = 1;
    let load = expression("ct", Attributes::default().number(1, REGISTER).number(2, STATE));
    // The one number that is in the host's byte order.
    vec![
        load,
        mask(&(ESTABLISHED | RELATED).to_ne_bytes()),
        compare(NOT_EQUAL, &[0; 4]),
    ]
}

fn icmp6() -> Vec<Attributes> {
    [
        meta(NFPROTO),
        equal(&[libc::NFPROTO_IPV6 as u8]),
        meta(L4PROTO),
        equal(&[libc::IPPROTO_ICMPV6 as u8]),
    ]
    .concat()
}

fn destination(reach: &Reach) -> Vec<Attributes> {
    let (family, offset, address) = match reach.address {
        IpAddr::V4(address) => (libc::NFPROTO_IPV4, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::NFPROTO_IPV6, 24, address.octets().to_vec()),
    };
    let mut expressions = [meta(NFPROTO), equal(&[family as u8])].concat();
    if reach.prefix > 0 {
        expressions.push(payload(1, offset, address.len() as u32));
        expressions.push(mask(&prefix_mask(reach.prefix, address.len())));
        expressions.extend(equal(&address));
    }
    expressions
}

fn prefix_mask(prefix: u8, length: usize) -> Vec<u8> {
    let bits = |index: usize| usize::from(prefix).saturating_sub(index * 8).min(8);
    (0..length).map(|index| !(0xff_u16 >> bits(index)) as u8).collect()
}

/// The transports that need a rule each; None is any.
fn protocols(reach: &Reach) -> Vec<Option<i32>> {
    match (reach.protocol, reach.ports) {
        (Protocol::Any, None) => vec![None],
        (Protocol::Any, Some(_)) => vec![Some(libc::IPPROTO_TCP), Some(libc::IPPROTO_UDP)],
        (Protocol::Tcp, _) => vec![Some(libc::IPPROTO_TCP)],
        (Protocol::Udp, _) => vec![Some(libc::IPPROTO_UDP)],
    }
}

fn transport(reach: &Reach, protocol: Option<i32>) -> Vec<Attributes> {
    let Some(protocol) = protocol else { return Vec::new() };
    let mut expressions = [meta(L4PROTO), equal(&[protocol as u8])].concat();
    if let Some((first, last)) = reach.ports {
        // The destination's port, of TCP and of UDP.
        expressions.push(payload(2, 2, 2));
        expressions.extend(between(&first.to_be_bytes(), &last.to_be_bytes()));
    }
    expressions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_bits_as_its_prefix() {
        assert_eq!(prefix_mask(8, 4), [255, 0, 0, 0]);
        assert_eq!(prefix_mask(20, 4), [255, 255, 240, 0]);
        assert_eq!(prefix_mask(32, 4), [255; 4]);
        assert_eq!(prefix_mask(65, 16)[7..10], [255, 128, 0]);
    }

    #[test]
    fn other_rules_are_another_chain_and_the_same_ones_the_same() {
        let reach = Reach::port("10.0.0.1".parse().unwrap(), 53);
        let (none, one) = (vec![], vec![reach]);
        assert_ne!(chain_name(&none), chain_name(&one));
        assert_eq!(chain_name(&one), chain_name(&one.clone()));
        assert_eq!(messages(&one, "c").len(), messages(&none, "c").len() + 2, "TCP and UDP");
    }
}
