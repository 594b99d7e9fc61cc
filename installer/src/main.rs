//! `nucleus-installer`: run by the chart on each node, or by hand.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use installer::config::{Handler, Runsc};
use installer::distribution::Distribution;
use installer::node::{self, Node, Report};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Puts the nucleus shim on this node and tells containerd of it, or takes both away again.
#[derive(Parser)]
#[command(name = "nucleus-installer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the shim there, make containerd know the handlers, restart it if its configuration changed
    Install {
        #[command(flatten)]
        node: NodeArgs,
        /// The shim to install
        #[arg(long, value_name = "PATH", default_value = "/containerd-shim-nucleus-v2")]
        shim: PathBuf,
        /// A handler that containerd is to know; may be given more than once
        #[arg(long = "handler", value_name = "NAME", default_value = "nucleus")]
        handlers: Vec<Handler>,
        /// Where the handler nucleus-gvisor finds runsc on the host
        #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/runsc", value_parser = host_path)]
        gvisor_path: String,
        /// The sha256 that runsc has to have
        #[arg(long, value_name = "HEX", value_parser = sha256)]
        gvisor_sha256: Option<String>,
    },
    /// Give the configuration back the bytes that it had, restart containerd, remove the shim
    Uninstall {
        #[command(flatten)]
        node: NodeArgs,
        /// Go on although containers of nucleus run here
        #[arg(long)]
        force: bool,
    },
    /// Do nothing until told to end: what the DaemonSet's pod does once the node is ready
    Wait,
}

#[derive(Args)]
struct NodeArgs {
    /// Where the host's root directory is
    #[arg(long, value_name = "PATH", default_value = "/")]
    root: PathBuf,
    /// Who runs containerd: containerd, k3s, rke2, k0s, microk8s
    #[arg(long, value_name = "NAME")]
    distribution: Distribution,
    /// The release that the node's files belong to
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "none/by-hand", value_parser = owner)]
    owner: String,
    /// The host's directory for the shim and what belongs to it
    #[arg(long, value_name = "PATH", default_value = "/opt/nucleus", value_parser = host_path)]
    directory: String,
    /// containerd's configuration, if not in its usual place
    #[arg(long, value_name = "PATH", value_parser = host_path)]
    config: Option<String>,
    /// containerd's socket, if not in its usual place
    #[arg(long, value_name = "PATH", value_parser = host_path)]
    socket: Option<String>,
    /// containerd's state directory, if not in its usual place
    #[arg(long, value_name = "PATH", value_parser = host_path)]
    state: Option<String>,
    /// The systemd unit that runs containerd, if not the usual one
    #[arg(long)]
    unit: Option<String>,
    /// How many seconds containerd may take to come back
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Write the reason of a failure to this file, too: what `kubectl describe pod` shows
    #[arg(long, value_name = "PATH")]
    termination_log: Option<PathBuf>,
}

impl NodeArgs {
    fn into_node(self) -> Node {
        Node {
            root: self.root,
            distribution: self.distribution,
            owner: self.owner,
            directory: self.directory,
            config: self.config,
            socket: self.socket,
            state: self.state,
            unit: self.unit,
            runsc: Runsc::default(),
            patience: Duration::from_secs(self.timeout),
            dry_run: self.dry_run,
        }
    }
}

/// Ends up in containerd's configuration: nothing that would end a line or a string there.
fn host_path(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|one| !one.is_control());
    let whole = text.starts_with('/') && text.len() > 1 && !text.ends_with('/');
    if whole && plain && !text.split('/').any(|part| part == "..") {
        Ok(text.to_owned())
    } else {
        Err("an absolute path of the host is needed, without `..` and without a slash at its end".to_owned())
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let hexadecimal = |one: char| one.is_ascii_digit() || ('a'..='f').contains(&one);
    if text.len() == 64 && text.chars().all(hexadecimal) {
        Ok(text.to_owned())
    } else {
        Err("64 hexadecimal digits in small letters are needed".to_owned())
    }
}

/// Ends up in a comment.
fn owner(text: &str) -> Result<String, String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|one| one.is_ascii_alphanumeric() || "-.".contains(one))
    };
    match text.split_once('/') {
        Some((namespace, name)) if plain(namespace) && plain(name) => Ok(text.to_owned()),
        _ => Err("a namespace and a name with a slash in between are needed".to_owned()),
    }
}

fn main() -> ExitCode {
    let (outcome, log) = match Cli::parse().command {
        Command::Install {
            node,
            shim,
            handlers,
            gvisor_path,
            gvisor_sha256,
        } => {
            let log = node.termination_log.clone();
            let node = Node {
                runsc: Runsc {
                    path: gvisor_path,
                    sha256: gvisor_sha256,
                },
                ..node.into_node()
            };
            (node::install(&node, &shim, &handlers), log)
        }
        Command::Uninstall { node, force } => {
            let log = node.termination_log.clone();
            (node::uninstall(&node.into_node(), force), log)
        }
        Command::Wait => return wait(),
    };
    match outcome {
        Ok(report) => {
            say(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let words = chain(&error);
            eprintln!("error: {words}");
            if let Some(path) = log
                && let Err(error) = std::fs::write(&path, &words)
            {
                eprintln!("error: write {}: {error}", path.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn say(report: &Report) {
    for line in report {
        println!("{line}");
    }
}

/// An error with all its reasons: whoever reads it in a pod's status sees nothing else.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(one) = source {
        words.push_str(": ");
        words.push_str(&one.to_string());
        source = one.source();
    }
    words
}

/// PID 1 gets no signal that it does not ask for.
fn wait() -> ExitCode {
    match Signals::new([SIGTERM, SIGINT]) {
        Ok(mut signals) => {
            signals.forever().next();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: wait for signals: {error}");
            ExitCode::FAILURE
        }
    }
}
