//! What kind of node the tests run on: the version of its cgroups, who makes them, how slow it is.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use prost_types::Any;

/// Set for a run with containers in scopes of systemd's.
pub const DRIVER: &str = "NUCLEUS_E2E_CGROUP_DRIVER";
/// Set on a machine that is so many times slower than a real one.
pub const SLOWER: &str = "NUCLEUS_E2E_SLOWER";

/// Whether the node has cgroup v2 alone.
pub fn has_cgroup_v2() -> bool {
    static V2: OnceLock<bool> = OnceLock::new();
    *V2.get_or_init(|| PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists())
}

/// Whether systemd makes the cgroups of containers.
pub fn has_systemd_driver() -> bool {
    std::env::var_os(DRIVER).is_some_and(|driver| driver == "systemd")
}

/// How long to wait for something that takes no more than `seconds` on a real machine.
pub fn patience(seconds: u64) -> Duration {
    let slower = std::env::var(SLOWER).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * slower.unwrap_or(1))
}

/// `linux.cgroupsPath` of a test's container.
pub fn cgroups_path(namespace: &str, id: &str) -> String {
    if has_systemd_driver() {
        format!("system.slice:{namespace}:{id}")
    } else {
        format!("/{namespace}/{id}")
    }
}

/// The directory of a test's container; `controller` counts on cgroup v1.
pub fn cgroup(controller: &str, namespace: &str, id: &str) -> PathBuf {
    let below = if has_systemd_driver() {
        format!("system.slice/{namespace}-{id}.scope")
    } else {
        format!("{namespace}/{id}")
    };
    if has_cgroup_v2() {
        format!("/sys/fs/cgroup/{below}").into()
    } else {
        format!("/sys/fs/cgroup/{controller}/{below}").into()
    }
}

/// The options that a container needs whose test gives it none.
pub fn options() -> Option<Any> {
    // systemd_cgroup is field 9 of containerd.runc.v1.Options.
    has_systemd_driver().then(|| Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: vec![0x48, 1],
    })
}
