//! What a test left behind. Everything that a container makes carries its namespace's name somewhere, and no two runs
//! on a machine share one, so that other people's containers are never taken for ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::api::Api;
use crate::containerd::Daemon;
use crate::processes;

/// Everything there is of one namespace, as lines that can be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

/// Looks at processes, mounts, cgroups, files, sockets, and what containerd itself lists.
pub async fn snapshot(daemon: &Daemon, namespace: &str, sockets: &[String]) -> Result<Snapshot> {
    let mut found = BTreeSet::new();
    found.extend(processes_of(daemon, namespace));
    found.extend(mounts(namespace));
    found.extend(cgroups(namespace));
    found.extend(files(daemon, namespace));
    found.extend(shim_sockets(daemon, namespace, sockets));
    found.extend(Api::new(daemon.channel()?, namespace).inventory().await?);
    Ok(Snapshot(found))
}

/// Waits until there is nothing more than before, or fails with what is left.
pub async fn nothing_more_than(before: &Snapshot, daemon: &Daemon, namespace: &str, sockets: &[String]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let now = snapshot(daemon, namespace, sockets).await?;
        let left: Vec<&String> = now.0.difference(&before.0).collect();
        if left.is_empty() {
            return Ok(());
        }
        // How long things may take to go away after the last reply.
        if begun.elapsed() > crate::node::patience(5) {
            bail!(
                "left behind:\n  {}",
                left.into_iter().cloned().collect::<Vec<_>>().join("\n  ")
            );
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Processes below the supervisor that belong to a namespace: by their cgroup, command line, environment or mounts, or
/// because their parent does.
fn processes_of(daemon: &Daemon, namespace: &str) -> Vec<String> {
    let Some(supervisor) = rustix::process::getppid() else {
        return Vec::new();
    };
    let all = processes::descendants(supervisor.as_raw_nonzero().get().unsigned_abs());
    let neutral = |pid: u32| pid == std::process::id() || Some(pid) == daemon.pid();
    let mut ours: BTreeMap<u32, bool> = all
        .iter()
        .map(|process| {
            (
                process.pid,
                !neutral(process.pid) && carries(process.pid, &process.command, namespace),
            )
        })
        .collect();
    loop {
        let children: Vec<u32> = all
            .iter()
            .filter(|process| ours.get(&process.parent) == Some(&true) && ours.get(&process.pid) == Some(&false))
            .map(|process| process.pid)
            .collect();
        if children.is_empty() {
            break;
        }
        ours.extend(children.into_iter().map(|pid| (pid, true)));
    }
    let ours = all.iter().filter(|process| ours.get(&process.pid) == Some(&true));
    ours.map(|process| format!("process {} ({}) {}", process.pid, process.state, process.command))
        .collect()
}

fn carries(pid: u32, command: &str, namespace: &str) -> bool {
    command.contains(namespace)
        || ["cgroup", "environ", "mountinfo"]
            .iter()
            .any(|file| processes::text(pid, file).contains(namespace))
}

fn mounts(namespace: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(namespace));
    lines
        .map(|line| format!("mount {}", line.split(' ').nth(4).unwrap_or(line)))
        .collect()
}

fn cgroups(namespace: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        // On cgroup v2 there is no hierarchy above; the namespace's own directory may stay, as it does on v1.
        if crate::node::has_cgroup_v2()
            && hierarchy
                .rsplit('/')
                .next()
                .is_some_and(|name| name.contains(namespace))
        {
            below(&hierarchy, 4, &mut |path| found.push(format!("cgroup {path}")));
            continue;
        }
        for top in entries(Path::new(&hierarchy)) {
            if top.rsplit('/').next().is_some_and(|name| name.contains(namespace)) {
                below(&top, 4, &mut |path| found.push(format!("cgroup {path}")));
            }
        }
    }
    found
}

fn files(daemon: &Daemon, namespace: &str) -> Vec<String> {
    let mut found = Vec::new();
    for home in [daemon.state(), daemon.root()] {
        let tasks = home.join("io.containerd.runtime.v2.task").join(namespace);
        found.extend(entries(&tasks).into_iter().map(|path| format!("file {path}")));
    }
    found.extend(
        entries(&Path::new("/run/containerd/runc").join(namespace))
            .iter()
            .map(|path| format!("file {path}")),
    );
    for home in ["/run/nucleus", "/run/containerd/nucleus", "/var/lib/nucleus"] {
        below(home, 4, &mut |path| {
            // The namespace's own directory may stay, as runc's does; what is in it may not.
            if path.contains(&format!("{namespace}/")) {
                found.push(format!("file {path}"));
            }
        });
    }
    found
}

/// Sockets that shims of these containers or groups would have made.
fn shim_sockets(daemon: &Daemon, namespace: &str, names: &[String]) -> Vec<String> {
    let there = names.iter().map(|name| (name, socket_path(daemon, namespace, name)));
    let there = there.filter(|(_, path)| Path::new(path).exists());
    there.map(|(name, path)| format!("socket {path} of {name}")).collect()
}

/// Where containerd's rules put the socket of a shim, by the container's or the group's name.
pub fn socket_path(daemon: &Daemon, namespace: &str, name: &str) -> String {
    let key = daemon.grpc_address().join(namespace).join(name);
    let hash: String = Sha256::digest(key.as_os_str().as_encoded_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("/run/containerd/s/{hash}")
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

fn below(directory: &str, depth: usize, tell: &mut impl FnMut(&str)) {
    for path in entries(Path::new(directory)) {
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory || !directory.starts_with("/sys/fs/cgroup") {
            tell(&path);
        }
        if is_directory && depth > 0 {
            below(&path, depth - 1, tell);
        }
    }
}
