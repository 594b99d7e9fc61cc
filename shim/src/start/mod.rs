//! The `start` action: containerd asks for the socket of a container's shim.
//!
//! It stands on every container's critical path, so it does nothing that the server can do for itself: bind, listen,
//! spawn, answer. containerd reads stdout **and stderr** to their end and takes all of it for the answer: the server
//! must not inherit either, and nothing but the answer may be printed unless the action fails.

pub mod bootstrap;
mod cgroup;
pub mod group;
pub mod socket;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use containerd_shim_protos::shim::oci::Options;
use protobuf::Message as _;
use runtime_core::bundle;
use runtime_core::sys::process::close_on_exec_from;

use crate::args::Args;
use crate::input;
use crate::sandbox;
use crate::service::options::{self, RUNC_OPTIONS, type_name};
use bootstrap::Request;
use socket::Socket;

/// Why no shim was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flag is missing.
    #[error("flag -{name} is missing")]
    MissingFlag {
        /// The flag's name.
        name: &'static str,
    },
    /// containerd's message cannot be read.
    #[error("read the request from stdin")]
    Input(#[source] io::Error),
    /// containerd's message is not understood.
    #[error("understand the request")]
    Request(#[from] bootstrap::Error),
    /// The runtime options are not what their type says.
    #[error("decode {RUNC_OPTIONS}")]
    Options(#[source] protobuf::Error),
    /// The handler's options are not what a pod could have.
    #[error("runtime options")]
    Handler(#[from] options::Error),
    /// The handler's options ask for what no sandbox of ours has.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The group cannot be told.
    #[error("find the container's group")]
    Group(#[from] group::Error),
    /// No socket.
    #[error("make the shim's socket")]
    Socket(#[from] socket::Error),
    /// Core scheduling was asked for and cannot be had.
    #[error("create a core scheduling cookie, as SCHED_CORE asks for")]
    SchedCore(#[source] io::Error),
    /// What we inherited would be inherited on.
    #[error("mark inherited descriptors close-on-exec")]
    Inherited(#[source] io::Error),
    /// The server cannot be executed.
    #[error("execute the shim's server {program}")]
    Spawn {
        /// Our own binary.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shim_cgroup option cannot be carried out.
    #[error("place the shim in its cgroup")]
    Cgroup(#[from] cgroup::Error),
    /// containerd does not listen.
    #[error("write the answer to stdout")]
    Answer(#[source] io::Error),
    /// The file for containerd 1.6 and 1.7.
    #[error("write {path}")]
    AddressFile {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Name of the file in the bundle from which containerd 1.6 and 1.7 learn the address after a restart, and `delete`
/// which socket to remove.
pub const ADDRESS_FILE: &str = "address";

/// File in the bundle of a container whose shim was there already: the socket is for others to remove.
pub const JOINED_FILE: &str = "nucleus-joined";

/// Runs the action: the working directory is the bundle.
pub fn run(args: &Args) -> Result<(), Error> {
    for (name, value) in [("namespace", &args.namespace), ("id", &args.id)] {
        if value.is_empty() {
            return Err(Error::MissingFlag { name });
        }
    }
    let request = Request::parse(&input::read().map_err(Error::Input)?, args, |name| {
        std::env::var(name).ok()
    })?;
    let shim_cgroup = shim_cgroup(&request)?;
    if !Path::new(bundle::FILE_NAME).exists() {
        // For a sandbox that is the shim's own: the server is not told the handler's options.
        let options = options::Options::parse(request.options.as_ref())?;
        sandbox::check_runtime(&args.id, &options.policy)?;
    }
    let group = group::of(Path::new("."), &args.id)?;
    let directory = request.socket_directory.as_deref().unwrap_or(socket::DEFAULT_DIRECTORY);
    let path = socket::path(directory, &request.address, &args.namespace, &group);
    let address = format!("unix://{}", path.display());
    let socket = socket::open(&path)?;
    // Every container's bundle has it, also where the shim is another one's: without, containerd 1.6 and 1.7 take the
    // shim for dead after a restart of theirs.
    let written = write_address(&address);
    if let Socket::New(listener) = socket {
        let served = written
            .and_then(|()| spawn(args, &request, &group, &path, listener))
            .and_then(|pid| place(pid, shim_cgroup.as_deref()));
        if let Err(error) = served {
            // Nobody serves there: the next start would find it stale, but nothing may be left behind.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
    } else {
        written.and_then(|()| write_file(JOINED_FILE, ""))?;
    }
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&request.reply.encode(&address))
        .and_then(|()| stdout.flush())
        .map_err(Error::Answer)
}

fn shim_cgroup(request: &Request) -> Result<Option<String>, Error> {
    let Some(options) = request.options.as_ref().filter(|any| type_name(any) == RUNC_OPTIONS) else {
        return Ok(None);
    };
    let options = Options::parse_from_bytes(&options.value).map_err(Error::Options)?;
    Ok(Some(options.shim_cgroup).filter(|path| !path.is_empty()))
}

fn write_address(address: &str) -> Result<(), Error> {
    let temporary = format!(".{ADDRESS_FILE}");
    std::fs::write(&temporary, address)
        .and_then(|()| std::fs::rename(&temporary, ADDRESS_FILE))
        .map_err(file_error(ADDRESS_FILE))
}

fn write_file(name: &'static str, text: &str) -> Result<(), Error> {
    std::fs::write(name, text).map_err(file_error(name))
}

fn file_error(name: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::AddressFile {
        path: name.into(),
        source,
    }
}

/// Executes the server with the listener as its stdin: the one descriptor that can be handed over without a step
/// between fork and exec. Its session and its OOM score are its own affair.
fn spawn(
    args: &Args,
    request: &Request,
    group: &str,
    socket: &Path,
    listener: std::os::fd::OwnedFd,
) -> Result<u32, Error> {
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        use rustix::thread::CoreSchedulingScope;
        rustix::thread::create_core_scheduling_cookie(rustix::process::getpid(), CoreSchedulingScope::ProcessGroup)
            .map_err(|error| Error::SchedCore(error.into()))?;
    }
    // Go closes what it does not hand over; but whoever started containerd may have left something open, which would
    // stay open as long as the pod.
    close_on_exec_from(3).map_err(Error::Inherited)?;
    let spawned = std::env::current_exe()
        .map_err(|source| (String::from("/proc/self/exe"), source))
        .and_then(|program| {
            let mut command = Command::new(&program);
            command.args([
                "-namespace",
                &args.namespace,
                "-id",
                &args.id,
                "-address",
                &request.address,
                "-group",
                group,
            ]);
            command.arg("-socket").arg(socket);
            if request.debug {
                command.arg("-debug");
            }
            command.arg("serve").env("TTRPC_ADDRESS", &request.ttrpc_address);
            command
                .stdin(Stdio::from(listener))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
                .spawn()
                .map_err(|source| (program.display().to_string(), source))
        });
    spawned
        .map(|child| child.id())
        .map_err(|(program, source)| Error::Spawn { program, source })
}

fn place(server: u32, shim_cgroup: Option<&str>) -> Result<(), Error> {
    let Some(path) = shim_cgroup else { return Ok(()) };
    cgroup::place(server, path).map_err(|error| {
        if let Some(pid) = rustix::process::Pid::from_raw(server as i32) {
            // Its only purpose is gone; it is our child and not yet reaped, so the pid is its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Error::Cgroup(error)
    })
}
