//! `nucleus`: what a container will be given, what a running one was given, and who decided it; what this node lacks;
//! what the digest of an image or a volume is.

mod bundle;
mod check;
mod digest;
mod manifest;
mod report;
mod running;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use runtime_core::error_chain::chain;

/// Explains what nucleus makes of a container, and of this node.
#[derive(Parser)]
#[command(name = "nucleus", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show each setting of the policy, who decided it, and what is enforced because of it
    Explain(ExplainArgs),
    /// Show what this node can do for containers, what it lacks and what to do; fails where none can run
    Check(CheckArgs),
    /// Print the digest of a volume's directory, for `volume_digest`, or of an image's layers, for `rootfs_digest`
    Digest(DigestArgs),
}

/// What to compute a digest of.
#[derive(Args)]
#[command(after_help = "\
Examples:
  nucleus digest ./config                                    of a volume with these files, owners and modes
  nucleus digest --rootfs /layers/top /layers/bottom         of an image: its unpacked layers, the topmost first

Names, kinds, modes, owners, links and contents count; times do not. As root, so that everything can be read.")]
struct DigestArgs {
    /// Directories, or one file of a volume's
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// They are the layers of an image, the topmost first
    #[arg(long)]
    rootfs: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How to tell.
#[derive(Args)]
struct CheckArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A bundle, a manifest, or a running container.
#[derive(Args)]
#[command(after_help = "\
Examples:
  nucleus explain /path/to/bundle                            as this node would run it
  nucleus explain /path/to/bundle --options handler.toml     with these options of its handler
  nucleus explain deployment.yaml                            the pods of a manifest, as this node would run them
  nucleus explain --running web --namespace k8s.io           what a running container was given
  nucleus explain --running web --json")]
struct ExplainArgs {
    /// Directory with an OCI bundle's config.json, or a file with a Kubernetes manifest: pods, or what makes pods
    #[arg(
        required_unless_present = "running",
        conflicts_with = "running",
        value_name = "BUNDLE|MANIFEST"
    )]
    what: Option<PathBuf>,
    /// The handler's options, as in containerd's configuration
    #[arg(long, value_name = "FILE", conflicts_with = "running")]
    options: Option<PathBuf>,
    /// The node's configuration, instead of /etc/nucleus/config.toml
    #[arg(long, value_name = "FILE", conflicts_with = "running")]
    config: Option<PathBuf>,
    /// Show the hardened spec too: what the policy makes of config.json
    #[arg(long, conflicts_with = "running")]
    spec: bool,
    /// A container of containerd's that runs on nucleus, by its id
    #[arg(long, value_name = "ID")]
    running: Option<String>,
    /// containerd's namespace of it; without, every one is looked into
    #[arg(long, requires = "running")]
    namespace: Option<String>,
    /// containerd's state directory
    #[arg(long, default_value = "/run/containerd", requires = "running")]
    state: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Explain(args) => explain(&args),
        Command::Check(args) => check(&args),
        Command::Digest(args) => digest(&args),
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let table = check::check();
    if args.json {
        println!("{:#}", table.json());
    } else {
        print!("{table}");
    }
    if table.is_usable() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn digest(args: &DigestArgs) -> ExitCode {
    match digest::digests(&args.paths, args.rootfs) {
        Ok(found) if args.json => println!("{:#}", digest::json(&found)),
        Ok(found) => print!("{}", digest::text(&found)),
        Err(error) => {
            eprintln!("nucleus: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn explain(args: &ExplainArgs) -> ExitCode {
    let told = match (&args.what, &args.running) {
        (Some(path), _) => explain_ahead(path, args),
        (None, running) => {
            let id = running.as_deref().unwrap_or_default();
            let report = running::explain(&args.state, args.namespace.as_deref(), id).map_err(boxed);
            report.map(|report| (report.json(), report.to_string(), true))
        }
    };
    match told {
        Ok((json, text, accepted)) => {
            if args.json {
                println!("{json:#}");
            } else {
                print!("{text}");
            }
            if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("nucleus: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What is told of a bundle or a manifest, for programs and for people, and whether all of it would be accepted.
fn explain_ahead(
    path: &Path,
    args: &ExplainArgs,
) -> Result<(serde_json::Value, String, bool), Box<dyn std::error::Error>> {
    let layers = bundle::Layers::read(args.options.as_deref(), args.config.as_deref()).map_err(boxed)?;
    if path.is_dir() {
        let report = bundle::explain(path, &layers, args.spec).map_err(boxed)?;
        return Ok((report.json(), report.to_string(), true));
    }
    let report = manifest::explain(path, &layers, args.spec).map_err(boxed)?;
    Ok((report.json(), report.to_string(), report.is_accepted()))
}

fn boxed<E: std::error::Error + 'static>(error: E) -> Box<dyn std::error::Error> {
    Box::new(error)
}
