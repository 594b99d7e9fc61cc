//! A containerd of our own: its root, state and sockets in one short temporary directory, its shims found by PATH,
//! its log in a file. Nothing of the machine's containerd is touched.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use containerd_client::tonic::transport::Channel;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::prepare::Tools;
use crate::processes;

/// The containerds that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// Built out of the Go module proxy
    #[value(name = "2.4.2")]
    V2,
    /// The distribution's, which speaks the older shim protocol
    #[value(name = "1.6.20")]
    V1,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "2.4.2",
            Self::V1 => "1.6.20",
        }
    }
}

/// One running (or just stopped) containerd.
pub struct Daemon {
    pub version: Version,
    directory: PathBuf,
    binaries: PathBuf,
    path: String,
    /// What containerd and the programs that talk with its CRI are started through.
    launcher: Vec<String>,
    /// nucleus' configuration of the node, where it has one.
    node: Option<PathBuf>,
    child: RefCell<Option<Child>>,
    channel: RefCell<Option<Channel>>,
    /// Told by `--keep`: leave it running when this value goes.
    pub keep: Cell<bool>,
}

/// What a containerd has beyond its own directory and sockets.
pub struct Setup {
    pub log_level: &'static str,
    /// Configuration of its CRI service, which is off without.
    pub cri: Option<String>,
    /// A command with arguments that starts the command behind it.
    pub launcher: Vec<String>,
    /// Directories on its PATH before all others.
    pub path: Vec<PathBuf>,
}

impl Setup {
    fn plain(log_level: &'static str) -> Self {
        Self {
            log_level,
            cri: None,
            launcher: Vec::new(),
            path: Vec::new(),
        }
    }
}

impl Daemon {
    /// Starts one in a new directory and waits until it answers.
    pub async fn start(tools: &Tools, version: Version) -> Result<Self> {
        Self::start_in(new_directory()?, tools, version, Setup::plain("debug")).await
    }

    /// Starts one for measuring: everything on a tmpfs, and no log but of warnings. `path` goes before its other
    /// programs.
    pub async fn start_for_measuring(tools: &Tools, version: Version, path: Vec<PathBuf>) -> Result<Self> {
        let directory = new_directory()?;
        // Goes with the directory, when this value is dropped.
        mount("e2e", &directory, "tmpfs", MountFlags::empty(), None)
            .with_context(|| format!("mount a tmpfs on {}", directory.display()))?;
        let setup = Setup {
            path,
            ..Setup::plain("warn")
        };
        Self::start_in(directory, tools, version, setup).await
    }

    /// Starts one in a directory that becomes its own.
    pub async fn start_in(directory: PathBuf, tools: &Tools, version: Version, setup: Setup) -> Result<Self> {
        let binaries = match version {
            Version::V2 => tools.containerd_2.clone(),
            Version::V1 => tools.containerd_1.clone().map_err(anyhow::Error::msg)?,
        };
        let first = setup.path.iter().chain([&binaries, &tools.runc, &tools.shim]);
        let path: String = first.map(|directory| format!("{}:", directory.display())).collect();
        let path = format!("{path}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let daemon = Self {
            version,
            directory,
            binaries,
            path,
            launcher: setup.launcher,
            node: tools.node.clone(),
            child: RefCell::new(None),
            channel: RefCell::new(None),
            keep: Cell::new(false),
        };
        daemon.write_config(setup.log_level, setup.cri.as_deref())?;
        daemon.start_again().await?;
        Ok(daemon)
    }

    fn write_config(&self, log_level: &str, cri: Option<&str>) -> Result<()> {
        let directory = self.directory.display();
        let number = if self.version == Version::V2 { 3 } else { 2 };
        let off = match (self.version, cri) {
            (Version::V2, None) => {
                r#""io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
    "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp""#
            }
            (Version::V2, Some(_)) => r#""io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp""#,
            (Version::V1, None) => r#""io.containerd.grpc.v1.cri", "io.containerd.tracing.processor.v1.otlp""#,
            (Version::V1, Some(_)) => r#""io.containerd.tracing.processor.v1.otlp""#,
        };
        let cri = cri.unwrap_or_default();
        let config = format!(
            r#"version = {number}
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [{off}]

[grpc]
address = "{directory}/grpc.sock"

[ttrpc]
address = "{directory}/ttrpc.sock"

[debug]
level = "{log_level}"

{cri}"#
        );
        let file = self.directory.join("config.toml");
        std::fs::write(&file, config).with_context(|| format!("write {}", file.display()))
    }

    /// Starts the daemon again after `kill` or `stop`, on the same root and state.
    pub async fn start_again(&self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.launch("containerd");
        command.arg("--config").arg(self.directory.join("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *self.child.borrow_mut() = Some(command.spawn().context("start containerd")?);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                bail!(
                    "containerd {} ended at its start: {status}\n{}",
                    self.version.name(),
                    self.log_tail(30)
                );
            }
            if let Ok(channel) = containerd_client::connect(self.grpc_address()).await
                && containerd_client::services::v1::version_client::VersionClient::new(channel.clone())
                    .version(())
                    .await
                    .is_ok()
            {
                *self.channel.borrow_mut() = Some(channel);
                return Ok(());
            }
            if begun.elapsed() > crate::node::patience(20) {
                bail!("containerd does not answer\n{}", self.log_tail(30));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn exited(&self) -> Result<Option<std::process::ExitStatus>> {
        Ok(match self.child.borrow_mut().as_mut() {
            Some(child) => child.try_wait().context("look after containerd")?,
            None => None,
        })
    }

    /// Sends containerd SIGKILL and waits until it is gone; containers and their shims stay.
    pub async fn kill(&self) -> Result<()> {
        self.end(Signal::KILL).await
    }

    /// Lets containerd end in order; containers and their shims stay.
    pub async fn stop(&self) -> Result<()> {
        self.end(Signal::TERM).await
    }

    async fn end(&self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.borrow_mut().take() else {
            return Ok(());
        };
        signal_child(&child, signal);
        child.wait().await.context("wait for containerd's end")?;
        self.channel.borrow_mut().take();
        Ok(())
    }

    /// The pid of containerd itself.
    pub fn pid(&self) -> Option<u32> {
        self.child.borrow().as_ref().and_then(Child::id)
    }

    /// A connection for gRPC.
    pub fn channel(&self) -> Result<Channel> {
        self.channel.borrow().clone().context("containerd is stopped")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn grpc_address(&self) -> PathBuf {
        self.directory.join("grpc.sock")
    }

    pub fn ttrpc_address(&self) -> PathBuf {
        self.directory.join("ttrpc.sock")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("containerd.log")
    }

    /// The bundle directory of a task.
    pub fn bundle(&self, namespace: &str, id: &str) -> PathBuf {
        self.state()
            .join("io.containerd.runtime.v2.task")
            .join(namespace)
            .join(id)
    }

    /// A program with the environment that containerd has: shims, runc and ctr are found by name.
    pub fn command(&self, program: &str) -> Command {
        self.with_environment(Command::new(self.find(program)))
    }

    /// The same, started as containerd itself is: in its network namespace, where it has one of its own.
    pub fn launch(&self, program: &str) -> Command {
        let Some((launcher, arguments)) = self.launcher.split_first() else {
            return self.command(program);
        };
        let mut command = Command::new(launcher);
        command.args(arguments).arg(self.find(program));
        self.with_environment(command)
    }

    fn find(&self, program: &str) -> PathBuf {
        let there = self
            .path
            .split(':')
            .map(|directory| Path::new(directory).join(program))
            .find(|path| path.exists());
        there.unwrap_or_else(|| self.binaries.join(program))
    }

    fn with_environment(&self, mut command: Command) -> Command {
        command
            .env("PATH", &self.path)
            .envs(self.node.iter().map(|path| ("NUCLEUS_CONFIG", path)))
            .env_remove("CONTAINERD_ADDRESS")
            .env_remove("CONTAINERD_NAMESPACE");
        command
    }

    /// `ctr`, of this daemon's own version, in a namespace.
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut command = self.command("ctr");
        command
            .arg("--address")
            .arg(self.grpc_address())
            .args(["--namespace", namespace]);
        command.kill_on_drop(true);
        command
    }

    /// Imports an image from a tar file and unpacks it.
    pub async fn import(&self, namespace: &str, tar: &Path) -> Result<()> {
        let mut import = self.ctr(namespace);
        import.args(["images", "import"]).arg(tar).stdin(Stdio::null());
        let output = import.output().await.context("run ctr images import")?;
        if !output.status.success() {
            bail!(
                "ctr images import {}: {}",
                tar.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// The last lines of the log that are worth a look.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let wanted: Vec<&str> = text.lines().filter(|line| !line.contains("level=debug")).collect();
        wanted[wanted.len().saturating_sub(lines)..].join("\n")
    }

    /// The last lines of the log, at most so many, that name something and are no mere debugging.
    pub fn log_about(&self, what: &str, lines: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let worth = |line: &&str| line.contains(what) && !line.contains("level=debug");
        let wanted: Vec<&str> = text.lines().filter(worth).collect();
        wanted[wanted.len().saturating_sub(lines)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.keep.get() {
            return;
        }
        if let Some(child) = self.child.borrow_mut().take() {
            signal_child(&child, Signal::TERM);
            if let Some(pid) = child.id() {
                wait_until_gone(pid);
            }
        }
        // Shims and what they hold: everything of this run that was started for this directory.
        let mark = self.directory.display().to_string();
        if let Some(supervisor) = rustix::process::getppid() {
            for process in processes::descendants(supervisor.as_raw_nonzero().get().unsigned_abs()) {
                if process.pid != std::process::id() && process.command.contains(&mark) {
                    signal_pid(process.pid, Signal::KILL);
                    wait_until_gone(process.pid);
                }
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| point.starts_with(&mark));
        for point in points.collect::<Vec<_>>().into_iter().rev() {
            if let Err(error) = unmount(point, UnmountFlags::DETACH) {
                eprintln!("unmount {point}: {error}");
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("remove {mark}: {error}");
        }
    }
}

/// A new directory for a containerd and all that is its own.
pub fn new_directory() -> Result<PathBuf> {
    // Short: a socket's path has 107 bytes.
    for number in 0..1000 {
        let path = PathBuf::from(format!("/tmp/e2e-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
        }
    }
    bail!("no free name for a directory /tmp/e2e-{}-N", std::process::id())
}

fn signal_child(child: &Child, signal: Signal) {
    if let Some(pid) = child.id() {
        signal_pid(pid, signal);
    }
}

fn signal_pid(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        kill_process(pid, signal).ok();
    }
}

/// Waits for the end of a process that was told to end, at most ten seconds.
fn wait_until_gone(pid: u32) {
    let begun = Instant::now();
    while processes::is_alive(pid) && begun.elapsed() < crate::node::patience(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
