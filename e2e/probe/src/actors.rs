//! The programs that tests expect in their images under names of their own: this one acts as all of them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, exit};
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde_json::json;

/// What nginx's first process shows as its command line.
const MASTER: &str = "nginx: master process";

/// Acts as whom this program was started as, if that is somebody else.
pub fn act(name: &str) -> Option<ExitCode> {
    if name.starts_with(MASTER) {
        serve("nginx");
    }
    match Path::new(name).file_name()?.to_str()? {
        "pause" => pause(),
        "nginx" => {
            let error = Command::new("/usr/sbin/nginx").arg0(MASTER).exec();
            eprintln!("nginx: {error}");
            Some(ExitCode::FAILURE)
        }
        "httpd" => serve("httpd"),
        "runsc" => Some(deceived()),
        "setuid" => {
            println!("Effective uid: {}", effective_uid());
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// A runsc that somebody got to execute a program of the host's: says what came of it, where runsc has its messages.
fn deceived() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("runsc version release-20991231.0");
        return ExitCode::SUCCESS;
    }
    let message = match Command::new("/bin/true").status() {
        Ok(status) => format!("/bin/true ended with {status}"),
        Err(error) => format!("/bin/true: {error}"),
    };
    let log = arguments.iter().find_map(|argument| argument.strip_prefix("--log="));
    let line = json!({"level": "error", "msg": message});
    match log {
        Some(log) => fs::write(log, format!("{line}\n")).unwrap_or_else(|error| eprintln!("runsc: {error}")),
        None => println!("{line}"),
    }
    ExitCode::FAILURE
}

/// Holds namespaces, and reaps what is orphaned in them, not at once.
fn pause() -> ! {
    loop {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        sleep(Duration::from_secs(1));
    }
}

/// Answers every HTTP request on $PORT, or 80, with a page.
fn serve(name: &'static str) -> ! {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(80);
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap_or_else(|error| {
        eprintln!("{name}: listen on port {port}: {error}");
        exit(1);
    });
    let file = format!("/var/run/{name}.pid");
    if let Err(error) = fs::write(&file, format!("{}\n", std::process::id())) {
        eprintln!("{name}: write {file}: {error}");
    }
    println!("{name} listens on port {port}");
    for stream in listener.incoming().flatten() {
        // A client that goes away is no concern of the others.
        spawn(move || answer(&stream, name).ok());
    }
    exit(0)
}

fn answer(mut stream: &TcpStream, name: &str) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let page = format!("<html><body>{name}</body></html>\n");
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(page.as_bytes())
}

fn effective_uid() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|ids| ids.split_whitespace().nth(1))
        .unwrap_or("unknown")
        .to_owned()
}
