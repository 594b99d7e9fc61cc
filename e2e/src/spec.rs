//! The OCI spec that containers of the tests start from: what `ctr run` gives an ordinary container, without a seccomp
//! profile and LSM labels.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Capabilities of an ordinary container.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What `PATH` is in containers.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The spec of a container, to be changed by its test.
pub fn base(namespace: &str, id: &str) -> Value {
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": [PATH],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": crate::node::cgroups_path(namespace, id),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
                "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The seccomp profile that containerd gives pods whose profile is RuntimeDefault, and `ctr run --seccomp`.
pub fn runtime_default() -> Result<Value> {
    let text = include_str!("../../runtime-core/tests/seccomp/profiles/containerd.json");
    serde_json::from_str(text).context("parse containerd's profile")
}

/// One entry of `mounts`.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Adds an entry to a list in a spec.
pub fn push(spec: &mut Value, pointer: &str, entry: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let Some(parent) = spec.pointer_mut(parent) else { return };
    match parent.get_mut(name).and_then(Value::as_array_mut) {
        Some(list) => list.push(entry),
        None => parent[name] = json!([entry]),
    }
}

/// Takes a namespace out of a spec: the container shares the host's.
pub fn without_namespace(spec: &mut Value, kind: &str) {
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

/// Replaces the path of a namespace, or adds the namespace.
pub fn with_namespace_path(spec: &mut Value, kind: &str, path: &str) {
    without_namespace(spec, kind);
    push(spec, "/linux/namespaces", json!({"type": kind, "path": path}));
}

/// Maps the container's ids 0…65535 to the host's 100000 and up, in a user namespace of its own.
pub fn with_user_namespace(spec: &mut Value) {
    push(spec, "/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}
