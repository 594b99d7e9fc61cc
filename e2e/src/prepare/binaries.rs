//! Our own static binaries: the shim under test, the small program in the test image, the node installer, the command.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{Libc, PrepareArgs, Profile, root, step, target};

const SHIM: &str = "containerd-shim-nucleus-v2";

/// What cargo built.
pub struct Binaries {
    pub probe: PathBuf,
    /// A directory that holds the shim alone: it goes on containerd's PATH.
    pub shim: PathBuf,
    pub installer: PathBuf,
    pub cli: PathBuf,
}

/// Builds the probe, the installer and the command, and the shim unless one was given.
pub async fn build(args: &PrepareArgs) -> Result<Binaries> {
    let architecture = std::env::consts::ARCH;
    let musl = format!("{architecture}-unknown-linux-musl");
    let gnu = format!("{architecture}-unknown-linux-gnu");
    let libc = match args.libc {
        Some(libc) => libc,
        None if has_target(&musl).await => Libc::Musl,
        None => Libc::Gnu,
    };
    let triple = if libc == Libc::Musl { &musl } else { &gnu };
    let profile = if args.profile == Profile::Quick {
        "quick"
    } else {
        "release"
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--target",
            triple,
            "--package",
            "probe",
            "--package",
            "installer",
            "--package",
            "cli",
        ])
        .current_dir(root());
    if libc == Libc::Gnu {
        // Given by the environment: .cargo/config.toml must not make every ordinary build on this host static.
        build.env(
            rustflags_variable(triple),
            "-C relocation-model=static -C target-feature=+crt-static",
        );
    }
    if args.shim.is_none() {
        build.args(["--package", "shim"]);
    }
    step(
        &format!("build the shim, the probe, the installer and the command ({triple}, {profile})"),
        &mut build,
    )
    .await?;
    let built = target().join(triple).join(profile);
    let shim = match &args.shim {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("find the shim {}", path.display()))?,
        None => built.join(SHIM),
    };
    Ok(Binaries {
        probe: built.join("probe"),
        shim: alone(&shim)?,
        installer: built.join("nucleus-installer"),
        cli: built.join("nucleus"),
    })
}

fn rustflags_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"))
}

/// Whether rustup has the target, or can get it now.
async fn has_target(triple: &str) -> bool {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
        .await;
    if installed.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line == triple)
    }) {
        return true;
    }
    let added = add_target(triple).await;
    if let Err(error) = &added {
        eprintln!("prepare: {error:#}; going on with glibc");
    }
    added.is_ok()
}

/// Gets the target's libraries by rustup, unless they are there.
pub async fn add_target(triple: &str) -> Result<()> {
    step(
        &format!("rustup target add {triple}"),
        Command::new("rustup").args(["target", "add", triple]),
    )
    .await
    .map(drop)
}

/// A directory with nothing but a link to the shim, so that PATH gives containerd this binary and no other.
fn alone(shim: &Path) -> Result<PathBuf> {
    if !shim.exists() {
        bail!("the shim {} was not built", shim.display());
    }
    // One for each binary: runs of the same one share it.
    let name = crate::image::digest(shim.as_os_str().as_encoded_bytes());
    let directory = target()
        .join("e2e")
        .join(format!("shim-{}", &name["sha256:".len()..][..12]));
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let link = directory.join(SHIM);
    match symlink(shim, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("link {}", link.display()))?,
    }
    Ok(directory)
}
