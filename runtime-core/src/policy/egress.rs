//! Where a pod may connect to: the setting's value, and which of two is the stricter one.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

/// Where a pod may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Egress {
    /// Anywhere.
    #[default]
    Open,
    /// Here alone; nowhere, where there is none. Sorted, none within another.
    Only(Vec<Destination>),
}

/// What connections may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// The name servers of the pod's resolv.conf, port 53 of TCP and UDP.
    Dns,
    /// A network.
    Net(Reach),
}

/// A network, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reach {
    /// All bits behind the prefix are zero.
    pub address: IpAddr,
    /// Bits.
    pub prefix: u8,
    /// None: any, also what has no ports.
    pub ports: Option<(u16, u16)>,
    /// Of transport.
    pub protocol: Protocol,
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Protocol {
    /// TCP and UDP where ports are named; without, whatever runs over IP.
    Any,
    Tcp,
    Udp,
}

impl Reach {
    /// `port` of one address, for TCP and UDP.
    pub fn port(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            prefix: bits(address),
            ports: Some((port, port)),
            protocol: Protocol::Any,
        }
    }

    /// Like `10.0.0.0/8:443,tcp`, `10.1.2.3`, `[fd00::/8]:8000-8080`, `fd00::/8,udp`.
    fn parse(text: &str) -> Option<Self> {
        let (place, protocol) = match text.split_once(',') {
            None => (text, Protocol::Any),
            Some((place, protocol)) => match protocol.trim() {
                "tcp" => (place.trim_end(), Protocol::Tcp),
                "udp" => (place.trim_end(), Protocol::Udp),
                _ => return None,
            },
        };
        let (net, ports) = match place.strip_prefix('[') {
            Some(rest) => {
                let (net, rest) = rest.split_once(']')?;
                let ports = if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':')?)
                };
                net.contains(':').then_some((net, ports))?
            }
            // One colon ends an IPv4 address, several are one of IPv6.
            None => match place.split_once(':') {
                Some((net, ports)) if !ports.contains(':') => (net, Some(ports)),
                _ => (place, None),
            },
        };
        let (address, prefix) = match net.split_once('/') {
            None => (net, None),
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        };
        let address: IpAddr = address.parse().ok()?;
        let prefix = prefix.unwrap_or(bits(address));
        let ports = match ports {
            None => None,
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                (first <= last).then_some(Some((first, last)))?
            }
        };
        // A bit behind the prefix is a slip of the pen, and who knows of which of the two.
        (prefix <= bits(address) && masked(address, prefix) == address).then_some(Self {
            address,
            prefix,
            ports,
            protocol,
        })
    }

    /// What both reach, None where that is nothing.
    fn and(&self, other: &Self) -> Option<Self> {
        let (wide, narrow) = if self.prefix <= other.prefix {
            (self, other)
        } else {
            (other, self)
        };
        let same_family = wide.address.is_ipv4() == narrow.address.is_ipv4();
        if !same_family || masked(narrow.address, wide.prefix) != wide.address {
            return None;
        }
        let ports = match (self.ports, other.ports) {
            (None, ports) | (ports, None) => ports,
            (Some((a, b)), Some((c, d))) if a.max(c) <= b.min(d) => Some((a.max(c), b.min(d))),
            _ => return None,
        };
        let protocol = match (self.protocol, other.protocol) {
            (Protocol::Any, protocol) | (protocol, Protocol::Any) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        Some(Self {
            address: narrow.address,
            prefix: narrow.prefix,
            ports,
            protocol,
        })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracket = self.address.is_ipv6() && self.ports.is_some();
        let [open, close] = if bracket { ["[", "]"] } else { ["", ""] };
        write!(f, "{open}{}", self.address)?;
        if self.prefix != bits(self.address) {
            write!(f, "/{}", self.prefix)?;
        }
        f.write_str(close)?;
        match self.ports {
            None => {}
            Some((first, last)) if first == last => write!(f, ":{first}")?,
            Some((first, last)) => write!(f, ":{first}-{last}")?,
        }
        f.write_str(match self.protocol {
            Protocol::Any => "",
            Protocol::Tcp => ",tcp",
            Protocol::Udp => ",udp",
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns => f.write_str("dns"),
            Self::Net(reach) => reach.fmt(f),
        }
    }
}

impl Destination {
    fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Dns, Self::Dns) => Some(Self::Dns),
            (Self::Net(own), Self::Net(other)) => own.and(other).map(Self::Net),
            // Which servers that are is known for a pod alone.
            _ => None,
        }
    }
}

impl Egress {
    fn text(&self) -> String {
        match self {
            Self::Open => "allow".into(),
            Self::Only(list) if list.is_empty() => "deny".into(),
            Self::Only(list) => {
                let list: Vec<String> = list.iter().map(Destination::to_string).collect();
                list.join("; ")
            }
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        match text.trim() {
            "allow" => Some(Self::Open),
            "deny" => Some(Self::Only(Vec::new())),
            text => {
                let one = |part: &str| match part.trim() {
                    "dns" => Some(Destination::Dns),
                    part => Reach::parse(part).map(Destination::Net),
                };
                let list: Option<Vec<Destination>> = text.split(';').map(one).collect();
                Some(Self::only(list?))
            }
        }
    }

    /// Without what is within another, in order: two that allow the same are equal.
    fn only(mut list: Vec<Destination>) -> Self {
        list.sort_unstable();
        list.dedup();
        let within = |part: &Destination, whole: &Destination| part != whole && part.and(whole) == Some(*part);
        let all = list.clone();
        list.retain(|part| !all.iter().any(|whole| within(part, whole)));
        Self::Only(list)
    }
}

impl Value for Egress {
    const EXPECTED: &'static str =
        "\"allow\", \"deny\", or destinations such as \"10.0.0.0/8:443,tcp; [fd00::/8]:8000-8080; dns\"";

    fn parse(given: Given<'_>) -> Option<Self> {
        Self::from_text(given.text()?)
    }

    fn stricter(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Open, other) => other.clone(),
            (own, Self::Open) => own.clone(),
            (Self::Only(own), Self::Only(other)) => {
                let both = own
                    .iter()
                    .flat_map(|own| other.iter().filter_map(|other| own.and(other)));
                Self::only(both.collect())
            }
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl From<Egress> for String {
    fn from(egress: Egress) -> Self {
        egress.text()
    }
}

impl TryFrom<String> for Egress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_text(&text).ok_or("not destinations")
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(text: &str) -> Egress {
        Egress::parse(Given::Annotation(text)).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn what_is_written_is_read_and_written_the_same() {
        for text in [
            "allow",
            "deny",
            "dns",
            "10.0.0.0/8:443,tcp",
            "10.1.2.3",
            "10.1.2.3:53",
            "0.0.0.0/0,udp",
            "fd00::/8",
            "[fd00::/8]:8000-8080,udp",
            "[::1]:1",
            "::/0,tcp",
            "dns; 10.0.0.0/8; fd00::/8",
        ] {
            assert_eq!(egress(text).text(), text);
        }
        assert_eq!(egress(" 10.0.0.0/8:443 , tcp ;dns").text(), "dns; 10.0.0.0/8:443,tcp");
        assert_eq!(egress("[fd00::/8]").text(), "fd00::/8");
    }

    #[test]
    fn what_says_nothing_clear_is_refused() {
        for text in [
            "",
            "none",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/8:",
            "10.0.0.0/8:9-1",
            "10.0.0.0/8:70000",
            "10.0.0.0/8,icmp",
            "example.com",
            "fd00::1/8",
            "[10.0.0.0/8]:1",
            "[fd00::/8]443",
            "dns;",
            "10.0.0.0/8;;dns",
            "dns:53",
            "deny; dns",
        ] {
            assert_eq!(Egress::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn of_two_what_both_allow_is_left() {
        let both = |a: &str, b: &str| egress(a).stricter(&egress(b)).text();
        assert_eq!(both("allow", "dns"), "dns");
        assert_eq!(
            both("10.0.0.0/8", "10.1.0.0/16:443,tcp; 11.0.0.0/8"),
            "10.1.0.0/16:443,tcp"
        );
        assert_eq!(
            both("10.0.0.0/8:1-100,tcp", "10.0.0.0/8:50-200"),
            "10.0.0.0/8:50-100,tcp"
        );
        assert_eq!(both("10.0.0.0/8,tcp", "10.0.0.0/8,udp; dns"), "deny");
        assert_eq!(both("0.0.0.0/0", "fd00::/8"), "deny");
        assert_eq!(both("dns; ::/0", "dns; fd00::/8"), "dns; fd00::/8");
    }

    #[test]
    fn a_pod_may_ask_for_a_part_of_what_is_allowed_and_for_no_more() {
        let strict = |asked: &str, floor: &str| egress(asked).is_as_strict_as(&egress(floor));
        for (asked, floor) in [
            ("deny", "dns"),
            ("dns", "allow"),
            ("10.1.0.0/16:443", "10.0.0.0/8"),
            ("10.1.0.0/16:443,tcp; 10.2.0.0/16", "10.0.0.0/8; dns"),
            ("10.0.0.0/8; 10.1.0.0/16", "10.0.0.0/8"),
        ] {
            assert!(strict(asked, floor), "{asked} under {floor}");
        }
        for (asked, floor) in [
            ("allow", "deny"),
            ("dns", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.1.0.0/16"),
            ("10.0.0.0/8", "10.0.0.0/8:443"),
            ("10.0.0.0/8; 12.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert!(!strict(asked, floor), "{asked} under {floor}");
        }
    }
}
