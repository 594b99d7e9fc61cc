//! containerd out of the Go module proxy, at the version that `e2e/tools/containerd/go.mod` pins.

use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{root, step, target};

const TAGS: &str = "no_btrfs,no_zfs,no_devmapper";
const LDFLAGS: &str = "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2";

/// A directory with containerd, ctr and containerd-shim-runc-v2, built unless that was done before.
pub async fn containerd() -> Result<PathBuf> {
    let module = root().join("e2e/tools/containerd");
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        hash.update(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    hash.update(TAGS);
    hash.update(LDFLAGS);
    let key: String = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let directory = target().join("tools").join(format!("containerd-{key}"));
    if directory.exists() {
        return Ok(directory);
    }
    let staging = directory.with_extension(format!("tmp{}", std::process::id()));
    std::fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
    let mut build = Command::new("go");
    build
        .args([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-tags",
            TAGS,
            "-ldflags",
            LDFLAGS,
            "-o",
        ])
        .arg(format!("{}/", staging.display()))
        .arg("tool")
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .current_dir(&module);
    step("build containerd 2.4.2 (about two minutes, once)", &mut build).await?;
    // Complete or not there at all: another run may look at the same time.
    if let Err(error) = std::fs::rename(&staging, &directory)
        && !directory.exists()
    {
        return Err(error).with_context(|| format!("rename {} to {}", staging.display(), directory.display()));
    }
    Ok(directory)
}
