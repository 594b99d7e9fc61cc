//! Debian's and Ubuntu's packages, unpacked beside us instead of installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{step, target};

/// What comes out of packages.
pub struct Packages {
    pub containerd: Result<PathBuf, String>,
    pub runc: PathBuf,
    pub busybox: PathBuf,
}

/// Downloads and unpacks the packages that are not there yet.
pub async fn fetch() -> Result<Packages> {
    let root = unpacked(&["containerd", "runc", "busybox-static"]).await?;
    let containerd = root.join("usr/bin");
    Ok(Packages {
        containerd: is_version_1_6(&containerd.join("containerd")).await?,
        runc: root.join("usr/sbin"),
        busybox: first_there(&[root.join("bin/busybox"), root.join("usr/bin/busybox")])?,
    })
}

/// The directory below which these packages' files are; what they depend on is not fetched with them.
pub async fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let home = target().join("deb");
    for package in packages {
        unpack(&home, package).await?;
    }
    Ok(home.join("root"))
}

async fn unpack(home: &Path, package: &str) -> Result<()> {
    let done = home.join(format!("{package}.done"));
    if done.exists() {
        return Ok(());
    }
    let downloads = home.join(package);
    std::fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
    let mut download = Command::new("apt-get");
    download.args(["download", "-qq", package]).current_dir(&downloads);
    if let Err(first) = step(&format!("download {package}"), &mut download).await {
        // The machine's package lists may be missing, or older than the mirror.
        step(
            "refresh the package lists",
            Command::new("apt-get").args(["update", "-qq"]),
        )
        .await
        .with_context(|| format!("after: {first:#}"))?;
        step(&format!("download {package}"), &mut download).await?;
    }
    let entries = std::fs::read_dir(&downloads).with_context(|| format!("read {}", downloads.display()))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let file = files
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let file = file.with_context(|| format!("no package file in {}", downloads.display()))?;
    step(
        &format!("unpack {package}"),
        Command::new("dpkg").arg("-x").arg(file).arg(home.join("root")),
    )
    .await?;
    std::fs::write(&done, "").with_context(|| format!("write {}", done.display()))
}

/// The directory of this containerd if it is a 1.6, else the reason why the old protocol cannot be tested with it.
async fn is_version_1_6(program: &Path) -> Result<Result<PathBuf, String>> {
    let output = Command::new(program).arg("--version").output().await;
    let output = output.with_context(|| format!("run {} --version", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let directory = program.parent().unwrap_or(Path::new("/")).to_owned();
    if text.contains(" 1.6.") || text.contains(" v1.6.") {
        return Ok(Ok(directory));
    }
    Ok(Err(format!("this distribution packages another one: {text}")))
}

fn first_there(candidates: &[PathBuf]) -> Result<PathBuf> {
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => bail!("none of {candidates:?} came out of the packages"),
    }
}
