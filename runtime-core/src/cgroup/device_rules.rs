//! `linux.resources.devices` as plain rules, and the devices that every container may use. The same in both versions.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;

/// Any number.
pub(super) const ANY: Option<u32> = None;

pub(super) const READ: u8 = 1;
pub(super) const WRITE: u8 = 2;
pub(super) const MAKE: u8 = 4;
pub(super) const FULL: u8 = READ | WRITE | MAKE;

/// What every container may use, whatever the spec says, as with runc: mknod of anything (a node without the right to
/// open it is harmless, and images hold them), /dev/null, zero, full, random, urandom, tty, the pseudo terminals, and
/// tun.
pub(super) const ALWAYS: [(char, Option<u32>, Option<u32>, u8); 11] = [
    ('c', ANY, ANY, MAKE),
    ('b', ANY, ANY, MAKE),
    ('c', Some(1), Some(3), FULL),
    ('c', Some(1), Some(8), FULL),
    ('c', Some(1), Some(7), FULL),
    ('c', Some(5), Some(0), FULL),
    ('c', Some(1), Some(5), FULL),
    ('c', Some(1), Some(9), FULL),
    ('c', Some(136), ANY, FULL),
    ('c', Some(5), Some(2), FULL),
    ('c', Some(10), Some(200), FULL),
];

/// One rule of an ordered list, of which the last that fits decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    /// `b` or `c`; None is both.
    pub kind: Option<char>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u8,
}

impl Rule {
    /// Reads one rule of the spec.
    pub fn parse(rule: &LinuxDeviceCgroup) -> Result<Self, &'static str> {
        Ok(Self {
            allow: rule.allow(),
            access: access(rule.access().as_deref().unwrap_or_default())?,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            kind: match rule.typ().unwrap_or_default() {
                LinuxDeviceType::A => None,
                LinuxDeviceType::B => Some('b'),
                LinuxDeviceType::C => Some('c'),
                LinuxDeviceType::U | LinuxDeviceType::P => return Err("the type is none of a, b, c"),
            },
        })
    }

    /// Whether it is about every device and every use of it.
    pub fn is_about_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == FULL
    }

    /// The spec's rules, and behind them those that every container has: not where everything is allowed that is not
    /// denied by name, since the denied stays so.
    pub fn all(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Self>, Error> {
        let mut list = Vec::with_capacity(rules.len() + ALWAYS.len());
        for rule in rules {
            list.push(Self::parse(rule).map_err(|fault| Error::DeviceRule {
                rule: describe(rule),
                fault,
            })?);
        }
        let last = list.iter().rev().find(|rule| rule.is_about_all());
        if !last.is_some_and(|rule| rule.allow) {
            list.extend(ALWAYS.map(|(kind, major, minor, access)| Self {
                allow: true,
                kind: Some(kind),
                major,
                minor,
                access,
            }));
        }
        Ok(list)
    }
}

fn access(letters: &str) -> Result<u8, &'static str> {
    let mut access = 0;
    for letter in letters.bytes() {
        access |= match letter {
            b'r' => READ,
            b'w' => WRITE,
            b'm' => MAKE,
            _ => return Err("access is made of r, w and m"),
        };
    }
    if access == 0 {
        Err("access is empty")
    } else {
        Ok(access)
    }
}

/// Access as the spec and the kernel write it.
pub(super) fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

/// None and -1 are any.
fn number(number: Option<i64>) -> Result<Option<u32>, &'static str> {
    match number {
        None | Some(-1) => Ok(ANY),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| "a device number is out of range"),
    }
}

/// A rule in the words of an error.
pub(super) fn describe(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    let verb = if rule.allow() { "allow" } else { "deny" };
    let kind = rule.typ().unwrap_or_default();
    let access = rule.access().as_deref().unwrap_or_default();
    format!(
        "{verb} {} {}:{} {access}",
        kind.as_str(),
        number(rule.major()),
        number(rule.minor())
    )
}
