//! Programs of Debian's and Ubuntu's packages with all that they need, unpacked beside us: nothing is installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::step;

/// Where the unpacked packages are.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// A program of theirs, which finds the libraries and scripts that came with it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join(program));
        command
            .env("LD_LIBRARY_PATH", self.libraries())
            .env("DEBOOTSTRAP_DIR", self.root.join("usr/share/debootstrap"));
        command
    }

    /// Where the libraries are that came with them, as LD_LIBRARY_PATH has it.
    pub fn libraries(&self) -> String {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        libraries
            .map(|below| self.root.join(below).display().to_string())
            .join(":")
    }

    /// One of their files.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// debootstrap's option that names Debian's keys.
    pub fn keyring(&self) -> String {
        let keys = self.root.join("usr/share/keyrings/debian-archive-keyring.gpg");
        format!("--keyring={}", keys.display())
    }

    /// Where qemu's firmware is.
    pub fn firmware(&self) -> [PathBuf; 2] {
        ["usr/share/qemu", "usr/share/seabios"].map(|below| self.root.join(below))
    }
}

/// Unpacks the wanted packages into `home`, with whatever they need that this machine does not have.
pub async fn fetch(home: &Path, wanted: &[&str]) -> Result<Programs> {
    let programs = Programs {
        root: home.join("programs"),
    };
    let done = home.join("programs.done");
    let these = wanted.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|there| there == these) {
        return Ok(programs);
    }
    let packages = match missing(wanted).await {
        Ok(packages) => packages,
        Err(first) => {
            step(
                "refresh the package lists",
                Command::new("apt-get").args(["update", "-qq"]),
            )
            .await
            .with_context(|| format!("after: {first:#}"))?;
            missing(wanted).await?
        }
    };
    let downloads = home.join("packages");
    std::fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
    let mut download = Command::new("apt-get");
    download
        .args(["download", "-qq"])
        .args(&packages)
        .current_dir(&downloads);
    step(&format!("download {}", wanted.join(", ")), &mut download).await?;
    for entry in std::fs::read_dir(&downloads)?.flatten() {
        let file = entry.path();
        let output = Command::new("dpkg")
            .arg("-x")
            .arg(&file)
            .arg(&programs.root)
            .output()
            .await;
        let output = output.context("run dpkg")?;
        if !output.status.success() {
            bail!(
                "dpkg -x {}: {}",
                file.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    std::fs::write(&done, these).with_context(|| format!("write {}", done.display()))?;
    Ok(programs)
}

/// The wanted packages, and those they need that are not installed.
async fn missing(wanted: &[&str]) -> Result<Vec<String>> {
    let mut simulate = Command::new("apt-get");
    // A wanted package that is installed here is downloaded all the same.
    simulate
        .args(["--simulate", "--no-install-recommends", "--reinstall", "install"])
        .args(wanted);
    let text = step(&format!("look for {}", wanted.join(", ")), &mut simulate).await?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        bail!("apt-get knows of nothing to fetch for {wanted:?}");
    }
    Ok(names)
}
