//! What the kernel says to the rules. Packets are sent by the suite `hardening`.

use super::*;
use crate::policy::{Destination, Egress, Given, Value as _};

/// Runs `what` in a network namespace of its own; not where tests are not root's.
fn in_a_network(what: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let thread = std::thread::spawn(|| {
        namespace::unshare(libc::CLONE_NEWNET).unwrap();
        namespace::loopback_up().unwrap();
        what();
    });
    thread.join().unwrap();
}

fn reaches(text: &str) -> Vec<Reach> {
    let Some(Egress::Only(list)) = Egress::parse(Given::Annotation(text)) else {
        panic!("{text}");
    };
    let reach = |destination: &Destination| match destination {
        Destination::Net(reach) => *reach,
        Destination::Dns => panic!("no address"),
    };
    list.iter().map(reach).collect()
}

#[test]
fn the_kernel_takes_every_kind_of_rule_again_and_others_beside_them() {
    in_a_network(|| {
        let every = reaches("10.0.0.0/8:443,tcp; 0.0.0.0/0:1-2; 1.2.3.4; fd00::/9,udp; ::/0; [::1]:5");
        enforce_here(&every).unwrap();
        enforce_here(&every).unwrap();
        enforce_here(&[]).unwrap();
    });
}

#[test]
fn loopback_stays_open_where_nothing_may_leave() {
    in_a_network(|| {
        enforce_here(&[]).unwrap();
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        server.recv(&mut [0; 1]).unwrap();
    });
}

#[test]
fn the_host_s_own_namespace_is_refused() {
    let error = enforce_at(Path::new("/proc/self/ns/net"), &[]).unwrap_err();
    assert!(
        error.to_string().contains("the host's own network namespace"),
        "{error}"
    );
    let error = enforce_at(Path::new("/no/such/namespace"), &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such/namespace"), "{error}");
}
