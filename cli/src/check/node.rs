//! What there is on this node: read, not judged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use installer::cri::{self, RuntimeVersion};
use installer::distribution::Distribution;
use runtime_core::cgroup::{self, Mode};
use runtime_core::host;

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub architecture: String,
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub release: String,
    /// None where there are no cgroups, or /proc cannot be read.
    pub cgroups: Option<Mode>,
    pub controllers: BTreeSet<String>,
    pub systemd: bool,
    /// Whether systemd's own socket or the system bus is there.
    pub systemd_socket: bool,
    pub landlock: u32,
    pub seccomp: bool,
    pub apparmor: bool,
    pub selinux: bool,
    pub pressure: bool,
    /// How many user namespaces there may be.
    pub user_namespaces: u64,
    /// Every containerd whose socket is at a place that we know.
    pub containerds: Vec<Containerd>,
}

/// A containerd, as it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    pub socket: PathBuf,
    /// Its version and its handlers with their types, or why it does not tell.
    pub answer: Result<(RuntimeVersion, Vec<(String, String)>), String>,
}

/// Looks around.
pub fn read() -> Node {
    let cgroups = cgroup::mode().ok();
    let lsms = host::lsms();
    Node {
        architecture: std::env::consts::ARCH.to_owned(),
        release: text("/proc/sys/kernel/osrelease"),
        cgroups,
        controllers: controllers(cgroups),
        systemd: host::systemd_runs(),
        systemd_socket: ["/run/systemd/private", "/run/dbus/system_bus_socket"]
            .iter()
            .any(|socket| Path::new(socket).exists()),
        landlock: host::landlock_abi(),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        apparmor: lsms.apparmor,
        selinux: lsms.selinux,
        pressure: Path::new("/proc/pressure").exists(),
        user_namespaces: text("/proc/sys/user/max_user_namespaces").parse().unwrap_or(0),
        containerds: containerds(),
    }
}

fn text(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim_end().to_owned()
}

fn controllers(cgroups: Option<Mode>) -> BTreeSet<String> {
    if cgroups == Some(Mode::V2) {
        let all = text("/sys/fs/cgroup/cgroup.controllers");
        return all.split_whitespace().map(str::to_owned).collect();
    }
    enabled_on_v1(&text("/proc/cgroups"))
}

/// Name, hierarchy, number of cgroups, enabled. On v1 the block devices' controller is called blkio.
fn enabled_on_v1(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let enabled = fields.len() == 4 && fields[3] == "1";
            enabled.then(|| if fields[0] == "blkio" { "io" } else { fields[0] }.to_owned())
        })
        .collect()
}

fn containerds() -> Vec<Containerd> {
    let sockets: BTreeSet<&str> = Distribution::ALL.iter().map(|one| one.layout().socket).collect();
    sockets
        .into_iter()
        .map(PathBuf::from)
        .filter(|socket| socket.exists())
        .map(|socket| {
            let ask = || Ok((cri::version(&socket)?, cri::runtimes(&socket)?));
            let answer = ask().map_err(|error: cri::CriError| runtime_core::error_chain::chain(&error));
            Containerd { socket, answer }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_v1_are_those_that_are_enabled() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t9\t1\nblkio\t4\t1\t1\nmemory\t0\t1\t0\n";
        let found = enabled_on_v1(text);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["cpu", "io"]);
    }
}
