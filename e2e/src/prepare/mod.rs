//! What a fresh machine lacks, put into `target/` once: packages of the distribution, containerd out of the Go module
//! proxy, our own static binaries. Nothing is installed and no service of the machine is touched.

pub mod binaries;
pub mod debian;
pub mod go_tools;
mod gvisor_shim;
pub mod lock;
pub mod packages;
pub mod programs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tokio::process::Command;

/// Which shim binary is tested.
#[derive(Args, Clone, Debug)]
pub struct PrepareArgs {
    /// How the shim is built: `release` is what is shipped, `quick` links in seconds
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// The C library of the static shim (default: musl where rustup has or can get the target)
    #[arg(long, value_enum)]
    pub libc: Option<Libc>,
    /// Test this shim binary instead of building one
    #[arg(long, value_name = "PATH")]
    pub shim: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    Release,
    Quick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Libc {
    Musl,
    Gnu,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A directory with containerd, ctr and containerd-shim-runc-v2 of 2.4.2.
    pub containerd_2: PathBuf,
    /// A directory with the same of the distribution's 1.6, or why there is none.
    pub containerd_1: Result<PathBuf, String>,
    /// A directory with runc.
    pub runc: PathBuf,
    pub busybox: PathBuf,
    /// `nucleus`, the command for people.
    pub cli: PathBuf,
    pub probe: PathBuf,
    /// A directory with containerd-shim-nucleus-v2 alone.
    pub shim: PathBuf,
    /// The node installer.
    pub installer: PathBuf,
    /// What nucleus' configuration of the node is to be; none for its defaults.
    pub node: Option<PathBuf>,
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Where built and fetched things are kept.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Fetches and builds what is not there yet, side by side where they do not wait for each other.
pub async fn prepare(args: &PrepareArgs) -> Result<Tools> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers, mounts and cgroups need root: run `sudo -E cargo e2e …`");
    }
    let (containerd_2, packages, binaries) =
        tokio::try_join!(go_tools::CONTAINERD.build(), packages::fetch(), binaries::build(args))?;
    Ok(Tools {
        containerd_2,
        containerd_1: packages.containerd,
        runc: packages.runc,
        busybox: packages.busybox,
        probe: binaries.probe,
        shim: binaries.shim,
        installer: binaries.installer,
        cli: binaries.cli,
        node: None,
    })
}

/// A directory with runsc and gVisor's own shim: only what is about gVisor waits for their build.
pub async fn gvisor() -> Result<PathBuf> {
    go_tools::GVISOR.build().await
}

/// A directory with containerd-shim-runsc-v1, gVisor's own shim, and the runsc that it finds on PATH.
pub async fn gvisor_shim() -> Result<PathBuf> {
    gvisor_shim::build().await
}

/// `cargo e2e prepare`.
pub async fn report(args: PrepareArgs) -> Result<ExitCode> {
    let tools = prepare(&args).await?;
    println!("containerd 2.4.2  {}", tools.containerd_2.display());
    match &tools.containerd_1 {
        Ok(path) => println!("containerd 1.6    {}", path.display()),
        Err(reason) => println!("containerd 1.6    none: {reason}"),
    }
    for (name, path) in [
        ("runc", &tools.runc),
        ("busybox", &tools.busybox),
        ("probe", &tools.probe),
        ("installer", &tools.installer),
    ] {
        println!("{name:<17} {}", path.display());
    }
    println!("{:<17} {}", "shim", tools.shim.display());
    println!("{:<17} {}", "gvisor", gvisor().await?.display());
    Ok(ExitCode::SUCCESS)
}

/// Runs one step with a line before and after it, and shows what it wrote if it fails.
pub async fn step(what: &str, command: &mut Command) -> Result<String> {
    let begun = Instant::now();
    eprintln!("prepare: {what} …");
    let output = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{what}: start {:?}", command.as_std().get_program()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        bail!("{what}: {}\n{}", output.status, text.trim_end());
    }
    eprintln!("prepare: {what}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
