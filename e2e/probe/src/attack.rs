//! What a hostile program in a container would do.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub fn connect(socket: &str) {
    let stream = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)),
        None => UnixStream::connect(socket),
    };
    match stream {
        Ok(_) => println!("connected"),
        Err(error) => println!("{error}"),
    }
}

pub fn listen(name: &str) -> ! {
    let name = name.trim_start_matches('@');
    let listener = SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
    match listener {
        Ok(listener) => {
            crate::say_ready();
            std::mem::forget(listener);
            crate::wait()
        }
        Err(error) => {
            eprintln!("probe: listen: {error}");
            std::process::exit(1)
        }
    }
}

/// Every process but init, the first of which this may be, and ourselves.
fn others() -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_other = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit()) && name != own;
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_other))
        .map(|entry| entry.path())
        .collect()
}

fn until(limit: usize) -> impl Fn() -> bool {
    let end = Instant::now() + Duration::from_millis(limit as u64);
    move || Instant::now() < end
}

/// Takes hold of the program that a process runs while it can be read, and opens that very file for writing as soon as
/// the kernel lets it: when no process runs it any more.
pub fn overwrite(limit: usize, name: &str) -> Value {
    let (mut seen, mut written) = (0, 0);
    let goes_on = until(limit);
    let mut held: Vec<fs::File> = Vec::new();
    while goes_on() && written == 0 {
        for process in others() {
            let exe = process.join("exe");
            let Ok(link) = fs::read_link(&exe) else { continue };
            if !link.to_string_lossy().contains(name) {
                continue;
            }
            if let Ok(file) = fs::File::open(&exe) {
                seen += 1;
                held.push(file);
            }
        }
        for file in &held {
            use std::os::fd::AsRawFd;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Ok(mut file) = fs::OpenOptions::new().write(true).open(path) {
                // What is written first is what would be executed next.
                written += usize::from(file.write_all(b"#!/bin/false\n").is_ok());
            }
        }
        if held.len() > 64 {
            held.clear();
        }
    }
    json!({"seen": seen, "written": written})
}

/// Looks at each process with that name for what its owner alone should see.
pub fn watch(limit: usize, name: &str) -> Value {
    let (mut seen, mut memory, mut environ, mut descriptors) = (BTreeSet::new(), 0, 0, 0);
    let goes_on = until(limit);
    while goes_on() && (memory == 0 || descriptors == 0) {
        for process in others() {
            // A process is called after its program: the one that enters still has the runtime's name.
            if !is_named(&process, name) {
                continue;
            }
            seen.insert(process.clone());
            let opened = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(0)
                .open(process.join("mem"));
            let read = fs::read(process.join("environ")).is_ok_and(|bytes| !bytes.is_empty());
            // Numbers may be seen by whoever has the same user; what they lead to may not.
            let led = |entry: fs::DirEntry| fs::metadata(entry.path()).is_ok();
            let listed =
                fs::read_dir(process.join("fd")).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(led)));
            // By now it may have become the container's own program, which may be looked at.
            if is_named(&process, name) {
                memory += usize::from(opened.is_ok());
                environ += usize::from(read);
                descriptors += usize::from(listed);
            }
        }
    }
    json!({"seen": seen.len(), "memory": memory, "environ": environ, "descriptors": descriptors})
}

fn is_named(process: &Path, name: &str) -> bool {
    let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
    comm.contains(name) || (name == "nucleus" && comm.starts_with("containerd-shim"))
}

/// Answers on a port, over TCP and UDP, IPv6 and IPv4, until it is killed.
pub fn serve(port: u16) -> ! {
    let any = (std::net::Ipv6Addr::UNSPECIFIED, port);
    let (tcp, udp) = match (std::net::TcpListener::bind(any), std::net::UdpSocket::bind(any)) {
        (Ok(tcp), Ok(udp)) => (tcp, udp),
        failed => {
            eprintln!("probe: listen at port {port}: {failed:?}");
            std::process::exit(1)
        }
    };
    std::thread::spawn(move || {
        let mut bytes = [0; 16];
        while let Ok((length, from)) = udp.recv_from(&mut bytes) {
            drop(udp.send_to(&bytes[..length], from));
        }
    });
    super::say_ready();
    loop {
        drop(tcp.accept());
    }
}

/// Listens at a port, over IPv4; says how that went.
pub fn bind(port: u16) -> String {
    match std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => "bound".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}

/// Two ways to a TCP server that are no connect(2) of a TCP socket.
fn past_tcp(protocol: &str, address: &std::net::SocketAddr) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, connect, ipproto, sendto, socket};
    let family = AddressFamily::INET;
    if protocol == "mptcp" {
        let socket = socket(family, SocketType::STREAM, Some(ipproto::MPTCP))?;
        return Ok(connect(&socket, address)?);
    }
    let socket = socket(family, SocketType::STREAM, None)?;
    let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32);
    sendto(&socket, b"x", flags, address)?;
    Ok(())
}

/// Connects to an address, or sends it a datagram and waits for the answer; says how that went.
pub fn dial(protocol: &str, address: &str) -> String {
    let limit = std::time::Duration::from_secs(10);
    let tried = || -> std::io::Result<()> {
        let address: std::net::SocketAddr = address.parse().map_err(std::io::Error::other)?;
        if protocol == "tcp" {
            return std::net::TcpStream::connect_timeout(&address, limit).map(drop);
        }
        if protocol == "mptcp" || protocol == "fastopen" {
            return past_tcp(protocol, &address);
        }
        let socket = std::net::UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(b"x")?;
        socket.recv(&mut [0; 1]).map(drop)
    };
    match tried() {
        Ok(()) => "answered".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}
