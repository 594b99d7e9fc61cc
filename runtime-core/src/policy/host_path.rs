//! Which of the host's paths give it away to whoever they are mounted for.

use std::path::{Component, Path, PathBuf};

use crate::plan::POD_FILES;

/// What is below these is the host's, and so is what is above.
const GIVEN_AWAY: [(&str, &str); 20] = [
    ("/proc", "the host's processes"),
    ("/sys", "the host's kernel"),
    ("/dev", "the host's devices"),
    ("/boot", "the host's kernel image"),
    ("/etc/kubernetes", "kubelet's credentials"),
    ("/etc/nucleus", "the node's configuration"),
    ("/etc/containerd", "containerd's configuration"),
    ("/etc/cni", "the network's configuration"),
    ("/etc/shadow", "the host's passwords"),
    ("/etc/ssh", "the host's keys"),
    ("/run/containerd", "containerd's state"),
    ("/run/docker.sock", "a container runtime's socket"),
    ("/run/docker", "a container runtime's state"),
    ("/run/crio", "a container runtime's state"),
    ("/run/k3s", "a container runtime's state"),
    ("/run/systemd/private", "systemd's socket"),
    ("/run/dbus", "the system bus"),
    ("/var/lib/containerd", "containerd's state"),
    ("/var/lib/docker", "a container runtime's state"),
    ("/var/lib/rancher", "a cluster's credentials and state"),
];

/// Of kubelet's directory only what is a pod's own may be had.
const KUBELET: &str = "/var/lib/kubelet";
const PODS: &str = "/var/lib/kubelet/pods";

/// What containerd's CRI plugin keeps for a pod (its resolv.conf, hosts, hostname, /dev/shm), below whatever state
/// directory.
const SANDBOXES: [&str; 2] = [
    "io.containerd.grpc.v1.cri/sandboxes",
    "io.containerd.cri.v1.runtime/sandboxes",
];

/// Where containerd has the bundles of sandboxes that a shim makes: `<namespace>/<id>` below it.
const SHIM_SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";

/// What a bind mount of `source` would give away, None where it is nothing. By name alone: links are for who opens it.
pub fn gives_away(source: &Path) -> Option<&'static str> {
    let path = normal(source);
    if path == Path::new("/") {
        return Some("the host's root");
    }
    // What hostIPC brings along.
    if path == Path::new("/dev/shm") || path == Path::new("/dev/mqueue") || is_of_a_sandbox(&path) {
        return None;
    }
    if path.starts_with(KUBELET) && !(path.starts_with(PODS) && path.components().count() > 6) {
        return Some("kubelet's state and credentials");
    }
    GIVEN_AWAY
        .into_iter()
        .find(|(given_away, _)| path.starts_with(given_away) || Path::new(given_away).starts_with(&path))
        .map(|(_, what)| what)
        .or_else(|| {
            Path::new(KUBELET)
                .starts_with(&path)
                .then_some("kubelet's state and credentials")
        })
}

/// A file or directory in the directory of one pod.
fn is_of_a_sandbox(path: &Path) -> bool {
    let text = path.to_string_lossy();
    // Of a sandbox of the shim's those files alone: beside them is its record.
    let own = text
        .split_once(&format!("/{SHIM_SANDBOXES}/"))
        .map(|(_, rest)| rest.split('/'));
    if own
        .is_some_and(|parts| matches!(parts.collect::<Vec<_>>()[..], [_, _, "etc", name] if POD_FILES.contains(&name)))
    {
        return true;
    }
    SANDBOXES.iter().any(|sandboxes| {
        text.split_once(&format!("/{sandboxes}/"))
            .is_some_and(|(_, rest)| rest.split('/').count() >= 2)
    })
}

/// Without `.` and `..`, and with /run for what is its other name everywhere.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(name) => normal.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    match normal.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_the_host_away_is_named_also_from_above_and_by_detours() {
        for source in [
            "/",
            "//",
            "/proc",
            "/proc/1/root",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/sda",
            "/run",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/abc",
            "/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/abc/nucleus.json",
            "/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/abc/etc",
            "/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/abc/etc/../nucleus.json",
            "/var/lib",
            "/var/lib/kubelet",
            "/var/lib/kubelet/pki",
            "/var/lib/kubelet/pods",
            "/var/lib/kubelet/pods/uid",
            "/etc",
            "/tmp/../etc/kubernetes/pki",
        ] {
            assert!(gives_away(Path::new(source)).is_some(), "{source}");
        }
    }

    #[test]
    fn what_kubelet_and_containerd_bring_along_and_the_workload_s_own_is_not() {
        for source in [
            "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~configmap/c",
            "/var/lib/kubelet/pods/uid/etc-hosts",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/shm",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/resolv.conf",
            "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/shm",
            "/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/abc/etc/hosts",
            "/dev/shm",
            "/dev/mqueue",
            "/srv/data",
            "/etc/localtime",
            "/procedures",
        ] {
            assert_eq!(gives_away(Path::new(source)), None, "{source}");
        }
    }
}
