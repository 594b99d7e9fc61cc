//! A container's statistics, as containerd's protobuf messages carry them. CRI, `ctr metrics` and containerd's own
//! metrics page tell the two by the type URL.

mod v1;
mod v2;

use protobuf::Message;
use protobuf::well_known_types::any::Any;
use runtime_core::cgroup::Stats;

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// `stats` as the message of the host's cgroup version.
pub fn encode(stats: &Stats) -> protobuf::Result<Any> {
    match stats {
        Stats::V1(stats) => any(V1, &v1::metrics(stats)),
        Stats::V2(stats) => any(V2, &v2::metrics(stats)),
    }
}

fn any(type_url: &str, message: &impl Message) -> protobuf::Result<Any> {
    Ok(Any {
        type_url: type_url.into(),
        value: message.write_to_bytes()?,
        ..Any::new()
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn each_cgroup_version_has_its_type_url() {
        let url = |stats| encode(&stats).unwrap().type_url;
        assert_eq!(url(Stats::V1(Box::default())), "io.containerd.cgroups.v1.Metrics");
        assert_eq!(url(Stats::V2(Box::default())), "io.containerd.cgroups.v2.Metrics");
    }
}
