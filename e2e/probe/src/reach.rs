//! What a process can reach: tried, not read from a configuration.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Deeper or larger trees than this are cut: processes and cgroups come and go.
const DEPTH: usize = 5;

pub fn reach() -> Value {
    json!({
        "capabilities": capabilities(),
        "devices": devices(),
        "writable proc": writable("/proc"),
        "writable sys": writable("/sys"),
        "readable secrets": readable_secrets(),
        "shared namespaces": shared_namespaces(),
        "system calls": crate::syscalls::reachable(),
        "gains privileges": crate::status()["NoNewPrivs"] == "0",
        "mounts in a user namespace": succeeds("unshare", &["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]),
        "executes from a tmpfs": executes_from("/run/probe"),
    })
}

fn capabilities() -> Vec<u32> {
    let status = crate::status();
    let set = status["CapBnd"]
        .as_str()
        .and_then(|set| u64::from_str_radix(set, 16).ok())
        .unwrap_or(u64::MAX);
    (0..64).filter(|bit| set >> bit & 1 == 1).collect()
}

/// Device nodes that can be opened, by their numbers.
fn devices() -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), 0, &mut |path| {
        let Ok(stat) = fs::symlink_metadata(path) else { return };
        let is_device = stat.file_type().is_char_device() || stat.file_type().is_block_device();
        if is_device && fs::OpenOptions::new().read(true).open(path).is_ok() {
            found.push(path.display().to_string());
        }
    });
    found.sort();
    found
}

/// Files that can be opened for writing; what belongs to single processes is left out, and nothing is written.
fn writable(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new(directory), 0, &mut |path| {
        let Ok(stat) = fs::symlink_metadata(path) else { return };
        // Opened for writing, these do something already.
        let is_trap = path.ends_with("kmsg") || path.ends_with("clear_refs");
        let may = stat.file_type().is_file() && stat.permissions().mode() & 0o222 != 0 && !is_trap;
        if may && fs::OpenOptions::new().append(true).open(path).is_ok() {
            found.push(path.display().to_string());
        }
    });
    found.sort();
    found
}

/// Files about the host that are usually hidden.
fn readable_secrets() -> Vec<&'static str> {
    const SECRETS: [&str; 9] = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/kallsyms",
        "/proc/kmsg",
        "/sys/kernel/security/lsm",
        "/sys/firmware/acpi/tables/DSDT",
    ];
    let reads = |path: &&str| {
        use std::io::Read;
        let mut byte = [0];
        let open = || fs::OpenOptions::new().read(true).open(path);
        // /proc/kmsg waits for what the kernel will say: opening it is enough.
        open().is_ok_and(|mut file| path.ends_with("kmsg") || file.read(&mut byte).is_ok_and(|count| count > 0))
    };
    SECRETS.into_iter().filter(reads).collect()
}

/// Namespaces that are the machine's first ones, by the numbers that the kernel gives those (proc_ns.h).
fn shared_namespaces() -> Vec<&'static str> {
    const FIRST: [(&str, u64); 6] = [
        ("ipc", 0xEFFF_FFFF),
        ("uts", 0xEFFF_FFFE),
        ("user", 0xEFFF_FFFD),
        ("pid", 0xEFFF_FFFC),
        ("cgroup", 0xEFFF_FFFB),
        ("time", 0xEFFF_FFFA),
    ];
    let is_first = |(kind, number): &(&str, u64)| {
        fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|stat| stat.ino() == *number)
    };
    FIRST.into_iter().filter(is_first).map(|(kind, _)| kind).collect()
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn executes_from(path: &str) -> bool {
    fs::copy("/proc/self/exe", path).is_ok() && succeeds(path, &["exit", "0"])
}

fn walk(directory: &Path, depth: usize, tell: &mut impl FnMut(&Path)) {
    let mut entries: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => return,
    };
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_process = directory == Path::new("/proc")
            && (name.bytes().all(|byte| byte.is_ascii_digit()) || name == "self" || name == "thread-self");
        let Ok(stat) = fs::symlink_metadata(&path) else {
            continue;
        };
        if is_process || stat.is_symlink() {
            continue;
        }
        if stat.is_dir() && depth < DEPTH {
            walk(&path, depth + 1, tell);
        } else {
            tell(&path);
        }
    }
}
