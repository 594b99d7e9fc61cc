//! `probe`: the small static program in the tests' images. Without arguments it prints, as one line of JSON, what a
//! process in the container sees; its verbs do the few things that busybox's applets cannot do exactly.

mod actors;
mod agent;
mod attack;
mod kernel;
mod reach;
mod syscalls;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio, exit};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value, json};

const USAGE: &str = "\
usage: probe                 print what this process sees, as JSON
       probe memory MIB      touch that much memory, print `ready`, wait
       probe allocate FILE MIB   give a file that much room at once; print `allocated` or why not
       probe spin            use one CPU until killed
       probe forks N         start N children that wait, print `ready`, wait
       probe background      leave a child behind that holds stdout open, exit with 0
       probe exit CODE       exit with this code
       probe lines N         print N numbered lines of 64 bytes
       probe echo            copy stdin to stdout, exit at its end
       probe wait            wait until killed
       probe connect SOCKET  connect to a Unix socket, a path or @NAME; print `connected`
       probe listen @NAME    listen at an abstract socket, print `ready`, wait
       probe bind PORT       listen at that port of TCP; print `bound` or why not
       probe ioctl DEVICE    ask a random device for its entropy; print `asked` or why not
       probe trace PID       attach to a process, stop it and let it go on; print `traced` or why not
       probe serve PORT      answer on that port of TCP and UDP, print `ready`
       probe dial tcp|udp|mptcp|fastopen ADDRESS:PORT   try to reach it; print `answered` or why not
       probe overwrite MS NAME   try to overwrite the running programs named so; tell how often it worked
       probe watch MS NAME   try to look into the processes named so; tell how often it worked
       probe calls           try what kernels are attacked through, print what each call came to, as JSON
       probe agent SOCKET    on the host: take seccomp listeners, print what is told, let every call pass
       probe foreign         make a call of another architecture's; print `survived`
       probe reach           print what this process can reach, as JSON";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    if let Some(code) = arguments.first().and_then(|name| actors::act(name)) {
        return code;
    }
    arguments.drain(..arguments.len().min(1));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => println!("{}", facts()),
        ["memory", mib] => memory(number(mib)),
        ["allocate", file, mib] => println!("{}", kernel::said("allocated", allocate(file, number(mib)))),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["forks", count] => forks(number(count)),
        ["background"] => {
            spawn_waiter(Stdio::inherit());
        }
        ["exit", code] => exit(number(code).try_into().unwrap_or(i32::MAX)),
        ["lines", count] => lines(number(count)),
        ["echo"] => echo(),
        ["wait"] => wait(),
        ["connect", socket] => attack::connect(socket),
        ["listen", name] => attack::listen(name),
        ["bind", port] => println!("{}", attack::bind(number(port).try_into().unwrap_or(u16::MAX))),
        ["ioctl", device] => println!("{}", kernel::said("asked", kernel::ioctl(device))),
        ["trace", pid] => println!(
            "{}",
            kernel::said("traced", kernel::trace(number(pid).try_into().unwrap_or(-1)))
        ),
        ["serve", port] => attack::serve(number(port).try_into().unwrap_or(u16::MAX)),
        ["dial", protocol, address] => println!("{}", attack::dial(protocol, address)),
        ["overwrite", limit, name] => println!("{}", attack::overwrite(number(limit), name)),
        ["watch", limit, name] => println!("{}", attack::watch(number(limit), name)),
        ["calls"] => println!("{}", json!(syscalls::attacks())),
        ["agent", socket] => agent::serve(socket),
        ["foreign"] => syscalls::foreign(),
        ["reach"] => println!("{}", reach::reach()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|error| {
        eprintln!("probe: `{text}`: {error}");
        exit(64)
    })
}

fn wait() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

fn say_ready() {
    println!("ready");
    // A reader may have gone away; the process under test goes on all the same.
    drop(std::io::stdout().flush());
}

fn memory(mib: usize) -> ! {
    let mut held = Vec::with_capacity(mib);
    for _ in 0..mib {
        let mut block = vec![0_u8; 1 << 20];
        for page in block.chunks_mut(4096) {
            page[0] = 1;
        }
        held.push(block);
    }
    say_ready();
    std::hint::black_box(&held);
    wait()
}

/// On hugetlbfs, whose files cannot be written to, the pages are taken and counted here.
fn allocate(file: &str, mib: usize) -> std::io::Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(file)?;
    let bytes = u64::try_from(mib << 20).unwrap_or(u64::MAX);
    Ok(rustix::fs::fallocate(
        file,
        rustix::fs::FallocateFlags::empty(),
        0,
        bytes,
    )?)
}

fn spawn_waiter(stdout: Stdio) {
    let started = Command::new("/proc/self/exe")
        .arg("wait")
        .stdin(Stdio::null())
        .stdout(stdout)
        .spawn();
    if let Err(error) = started {
        eprintln!("probe: start a child: {error}");
        exit(1);
    }
}

fn forks(count: usize) -> ! {
    for _ in 0..count {
        spawn_waiter(Stdio::null());
    }
    say_ready();
    wait()
}

fn lines(count: usize) {
    let mut out = std::io::stdout().lock();
    for line in 0..count {
        if writeln!(out, "{line:063}").is_err() {
            exit(1);
        }
    }
}

fn echo() {
    let mut buffer = [0_u8; 4096];
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_ok() => {}
            _ => exit(1),
        }
    }
}

fn read(path: &str) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn trimmed(path: &str) -> String {
    read(path).trim_end().to_owned()
}

fn nul_separated(path: &str) -> Vec<String> {
    read(path).split_terminator('\0').map(str::to_owned).collect()
}

/// Names of a directory and, where they are links, what the links say.
fn links(path: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((
            entry.file_name().to_string_lossy().into_owned(),
            target.to_string_lossy().into_owned(),
        ))
    };
    entries.filter_map(link).collect()
}

/// Open descriptors, without the one that lists them.
fn descriptors() -> BTreeMap<String, String> {
    let mut open = links("/proc/self/fd");
    open.retain(|_, target| !target.ends_with("/fd"));
    open
}

fn status() -> Map<String, Value> {
    let text = read("/proc/self/status");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| {
            (
                name.to_owned(),
                json!(value.split_whitespace().collect::<Vec<_>>().join(" ")),
            )
        })
        .collect()
}

fn limits() -> Map<String, Value> {
    let text = read("/proc/self/limits");
    let limit = |line: &str| {
        let (name, rest) = line.split_at_checked(26)?;
        let mut fields = rest.split_whitespace();
        Some((name.trim().to_owned(), json!([fields.next()?, fields.next()?])))
    };
    text.lines().skip(1).filter_map(limit).collect()
}

/// Fields of /proc/self/stat by proc(5)'s numbers; the name in field 2 may hold blanks, so they are counted after it.
fn stat_field(number: usize) -> i64 {
    let text = read("/proc/self/stat");
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
        .nth(number - 3)
        .and_then(|field| field.parse().ok())
        .unwrap_or(i64::MIN)
}

fn dev() -> Vec<String> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn facts() -> Value {
    let lines = |path| read(path).lines().map(str::to_owned).collect::<Vec<_>>();
    json!({
        "args": nul_separated("/proc/self/cmdline"),
        "cgroup": lines("/proc/self/cgroup"),
        "cwd": fs::read_link("/proc/self/cwd").map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        "dev": dev(),
        "domainname": trimmed("/proc/sys/kernel/domainname"),
        "env": nul_separated("/proc/self/environ"),
        "fds": descriptors(),
        "gid_map": lines("/proc/self/gid_map"),
        "hostname": trimmed("/proc/sys/kernel/hostname"),
        "keys": lines("/proc/keys"),
        "limits": limits(),
        "mounts": lines("/proc/self/mountinfo"),
        "nice": stat_field(19),
        "ns": links("/proc/self/ns"),
        "oom_score_adj": trimmed("/proc/self/oom_score_adj"),
        "personality": trimmed("/proc/self/personality"),
        "pgrp": stat_field(5),
        "pid": std::process::id(),
        "ppid": stat_field(4),
        "rt_priority": stat_field(40),
        "sched_policy": stat_field(41),
        "session": stat_field(6),
        "status": status(),
        "tty": stat_field(7),
        "uid_map": lines("/proc/self/uid_map"),
    })
}
