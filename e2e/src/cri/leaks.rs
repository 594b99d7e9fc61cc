//! What pods left behind. Every sandbox and container has a name of 64 digits that nobody else has, and containerd's
//! log has them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::context::Runtime;
use crate::leaks::socket_path;
use crate::processes;

use super::daemon::{CriDaemon, NAMESPACE};

/// How long things may take to go away after the last reply.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until nothing is left, or time is up.
pub async fn left_behind(daemon: &CriDaemon, runtime: Runtime) -> Vec<String> {
    let log = fs::read_to_string(daemon.log()).unwrap_or_default();
    let names = names(&log);
    if runtime == Runtime::Runc {
        // Its shims leave their sockets when they are killed: they are removed, not told.
        for name in &names {
            fs::remove_file(socket_path(daemon, NAMESPACE, name)).ok();
        }
    }
    let begun = Instant::now();
    loop {
        let found = look(daemon, &names);
        if found.is_empty() || begun.elapsed() > PATIENCE {
            return found;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn look(daemon: &CriDaemon, names: &BTreeSet<String>) -> Vec<String> {
    let mark = daemon.directory().display().to_string();
    let mut found = Vec::new();
    if let Some(supervisor) = rustix::process::getppid() {
        let below = processes::descendants(supervisor.as_raw_nonzero().get().unsigned_abs());
        let neutral = |pid: u32| pid == std::process::id() || Some(pid) == daemon.pid();
        let ours = below.iter().filter(|process| !neutral(process.pid));
        let ours = ours.filter(|process| {
            process.command.contains(&mark)
                || processes::text(process.pid, "environ").contains(&mark)
                || has_name(&processes::text(process.pid, "cgroup"), names)
        });
        found.extend(ours.map(|process| format!("process {} ({}) {}", process.pid, process.state, process.command)));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.filter(|point| point.starts_with(&mark) && !point.ends_with("/netns"));
    found.extend(points.map(|point| format!("mount {point}")));
    found.extend(cgroups(names).iter().map(|path| format!("cgroup {}", path.display())));
    let sockets = names.iter().map(|name| socket_path(daemon, NAMESPACE, name));
    found.extend(
        sockets
            .filter(|path| Path::new(path).exists())
            .map(|path| format!("socket {path}")),
    );
    for home in [daemon.state(), daemon.root()] {
        for kind in [
            "io.containerd.runtime.v2.task",
            "io.containerd.sandbox.controller.v1.shim",
        ] {
            let entries = fs::read_dir(home.join(kind).join(NAMESPACE))
                .into_iter()
                .flatten()
                .flatten();
            found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
    }
    found
}

fn has_name(text: &str, names: &BTreeSet<String>) -> bool {
    text.lines()
        .any(|line| line.rsplit('/').next().is_some_and(|last| names.contains(last)))
}

/// Directories of these names, wherever a pod's cgroup parent was.
pub fn cgroups(names: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 4, &mut |path| {
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| names.contains(name))
        {
            found.push(path.to_owned());
        }
    });
    found
}

fn walk(directory: &Path, depth: usize, tell: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tell(&entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, tell);
            }
        }
    }
}

/// Runs of exactly 64 hexadecimal digits. Digests of images are among them, and name nothing on the machine.
fn names(log: &str) -> BTreeSet<String> {
    let words = log.split(|character: char| !character.is_ascii_hexdigit());
    words.filter(|word| word.len() == 64).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_shorter_and_longer_numbers() {
        let name = "0123456789abcdef".repeat(4);
        let log = format!("RunPodSandbox returns \\\"{name}\\\" deadbeef {name}0");
        assert_eq!(names(&log).into_iter().collect::<Vec<_>>(), [name]);
    }
}
