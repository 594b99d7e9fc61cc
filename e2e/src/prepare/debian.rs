//! Debian 12 in a directory, made by debootstrap: what machines and images of the tests start from.

use std::path::Path;

use anyhow::{Context, Result};

use super::programs::Programs;
use super::step;

/// What `install` needs of `programs::fetch`.
pub const PACKAGES: [&str; 2] = ["debootstrap", "debian-archive-keyring"];

/// Installs Debian's smallest system and these packages into a new directory.
pub async fn install(programs: &Programs, root: &Path, packages: &[&str]) -> Result<()> {
    if root.exists() {
        std::fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    std::fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    let mut debootstrap = programs.command("usr/sbin/debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--include={}", packages.join(",")))
        .arg(programs.keyring())
        .arg("bookworm")
        .arg(root)
        .arg("http://deb.debian.org/debian")
        // Its own programs run in the new root, with that one's libraries.
        .env_remove("LD_LIBRARY_PATH");
    step(
        "install Debian 12 into a directory (minutes, by what is wanted)",
        &mut debootstrap,
    )
    .await?;
    for cache in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        let cache = root.join(cache);
        std::fs::remove_dir_all(&cache).with_context(|| format!("remove {}", cache.display()))?;
    }
    Ok(())
}
