//! Where the software lives: Debian 12 with what people run, in a directory below every container's own layer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::prepare::{debian, programs, step, target};

/// Goes up when what is built below changes: then it is built anew.
const VERSION: u32 = 1;

const PACKAGES: [&str; 15] = [
    "cron",
    "curl",
    "gdb",
    "nginx-light",
    "nodejs",
    "openjdk-17-jdk-headless",
    "postgresql",
    "procps",
    "psmisc",
    "python3",
    "redis-server",
    "rsyslog",
    "strace",
    "sudo",
    "util-linux",
];

/// Services must not start where packages are only unpacked.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// The software's root directory.
pub fn root() -> PathBuf {
    base().join("root")
}

fn base() -> PathBuf {
    target().join("software").join(format!("base-{VERSION}"))
}

/// Builds it unless it is there. An error is a reason why this machine cannot have it.
pub async fn prepare() -> Result<()> {
    let done = base().join("done");
    if done.exists() {
        return Ok(());
    }
    let programs = programs::fetch(&target().join("software"), &debian::PACKAGES).await?;
    let root = root();
    debian::install(&programs, &root, &["ca-certificates"]).await?;
    let policy = root.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, POLICY).with_context(|| format!("write {}", policy.display()))?;
    std::fs::set_permissions(&policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    step("refresh Debian's package lists", apt_get(&root).args(["update", "-qq"])).await?;
    step(
        "install servers, languages and tools into it (about two minutes)",
        apt_get(&root)
            .args(["install", "-qq", "--yes", "--no-install-recommends"])
            .args(PACKAGES),
    )
    .await?;
    std::fs::remove_file(&policy).context("allow services again")?;
    step("remove what was downloaded", apt_get(&root).arg("clean")).await?;
    let lists = root.join("var/lib/apt/lists");
    std::fs::remove_dir_all(&lists).with_context(|| format!("remove {}", lists.display()))?;
    std::fs::write(&done, "").with_context(|| format!("write {}", done.display()))
}

/// The new system's own apt-get, which knows how to order what depends on each other. It sees a /proc, which ends with
/// it.
fn apt_get(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--fork", "--pid", "--kill-child", "--mount"])
        .arg(format!("--mount-proc={}", root.join("proc").display()))
        .arg("chroot")
        .arg(root)
        .arg("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
