//! Who runs on this machine below a given process, out of /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// One process as /proc shows it.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// proc(5)'s letter: `Z` is a zombie.
    pub state: char,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// Every process below `root`, without `root` itself.
pub fn descendants(root: u32) -> Vec<Process> {
    let all: BTreeMap<u32, Process> = list().into_iter().map(|process| (process.pid, process)).collect();
    let mut known = BTreeSet::from([root]);
    // Parents may have higher numbers than their children: repeat until nothing is added.
    loop {
        let more: Vec<u32> = all
            .values()
            .filter(|process| known.contains(&process.parent))
            .map(|process| process.pid)
            .collect();
        let before = known.len();
        known.extend(more);
        if known.len() == before {
            break;
        }
    }
    known.remove(&root);
    all.into_values()
        .filter(|process| known.contains(&process.pid))
        .collect()
}

fn list() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// One process, or `None` where it is gone.
pub fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let line = text(pid, "cmdline").replace('\0', " ");
    let command = if line.is_empty() {
        format!("[{name}]")
    } else {
        line.trim_end().to_owned()
    };
    Some(Process {
        pid,
        parent,
        state,
        command,
    })
}

/// A file of /proc/PID as text; empty where the process is gone.
pub fn text(pid: u32, file: &str) -> String {
    fs::read(format!("/proc/{pid}/{file}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    read(pid).is_some_and(|process| process.state != 'Z')
}

/// Sends SIGKILL; a process that is gone already is as good.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

/// The shim of a container's first process: its parent.
pub fn shim_of(init: u32) -> Option<u32> {
    read(init).map(|process| process.parent)
}
