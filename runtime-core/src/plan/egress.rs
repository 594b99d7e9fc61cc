//! What may leave the container's network, with the pod's name servers by their addresses.

use super::{Error, Namespace, Namespaces, Request};
use crate::policy::{Destination, Egress, Reach};

const DNS_PORT: u16 = 53;

/// None: everything.
pub(super) fn allowed(namespaces: &Namespaces, request: &Request) -> Result<Option<Vec<Reach>>, Error> {
    let setting = &request.policy.egress;
    let Egress::Only(destinations) = &setting.value else {
        return Ok(None);
    };
    let refused = |field: &str, advice| Error::Policy {
        setting: "egress",
        value: setting.value.to_string(),
        by: setting.from,
        field: field.to_owned(),
        advice,
    };
    if namespaces.net == Namespace::Host {
        let advice = "rules for it would hold for the whole node; give the pod a network of its own";
        return Err(refused("linux.namespaces: network", advice));
    }
    if destinations.contains(&Destination::Dns) && request.name_servers.is_empty() {
        let advice = "no name server is in what is mounted there; name the servers by their addresses, with port 53";
        return Err(refused("mounts: /etc/resolv.conf", advice));
    }
    let servers = request.name_servers.iter();
    let mut allowed: Vec<Reach> = destinations
        .iter()
        .flat_map(|destination| match destination {
            Destination::Dns => servers.clone().map(|&server| Reach::port(server, DNS_PORT)).collect(),
            Destination::Net(reach) => vec![*reach],
        })
        .collect();
    allowed.sort_unstable();
    allowed.dedup();
    Ok(Some(allowed))
}
