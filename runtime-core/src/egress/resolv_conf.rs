//! The name servers that a container is given.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::policy::{Destination, Egress, Policy};

/// What is mounted over the image's file by kubelet and containerd.
const PATH: &str = "/etc/resolv.conf";

/// A file longer than this was never one.
const LIMIT: u64 = 64 << 10;

/// As many as anybody has; a C library looks at three.
const MOST: usize = 16;

/// The name servers of the file that `spec` mounts at /etc/resolv.conf, where `policy` has a use for them; none where
/// there is no such mount, or no such file.
pub fn name_servers(spec: &Spec, policy: &Policy) -> Vec<IpAddr> {
    if !matches!(&policy.egress.value, Egress::Only(list) if list.contains(&Destination::Dns)) {
        return Vec::new();
    }
    let mut mounts = spec.mounts().iter().flatten();
    let of_the_container = mounts.rfind(|mount| mount.destination() == Path::new(PATH));
    let Some(source) = of_the_container.and_then(|mount| mount.source().as_ref()) else {
        return Vec::new();
    };
    let mut text = String::new();
    match File::open(source).map(|file| file.take(LIMIT).read_to_string(&mut text)) {
        Ok(Ok(_)) => parse(&text),
        // Who needs one is told that there is none.
        _ => Vec::new(),
    }
}

/// resolv.conf(5): `nameserver` and an address, perhaps with a zone.
fn parse(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_nothing_else() {
        let text =
            "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.96.0.10\n  nameserver\tfe80::1%eth0 x\nnameserver x\n";
        let expected: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(parse(text), expected);
    }
}
