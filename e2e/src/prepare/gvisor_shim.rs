//! gVisor's own shim, to be measured beside: with one line changed, so that it starts without CAP_SYS_RESOURCE.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::go_tools::GVISOR;
use super::{root, step, target};

/// It ends at its start where it may not set this score of its own.
const SCORE: &str = "oomScoreMaxKillable = -999";

/// A directory with containerd-shim-runsc-v1 and the runsc that it finds on PATH.
pub async fn build() -> Result<PathBuf> {
    let programs = GVISOR.build().await?;
    let mut name = programs.file_name().unwrap_or_default().to_owned();
    name.push("-shim");
    let directory = programs.with_file_name(name);
    if directory.exists() {
        return Ok(directory);
    }
    let module = root().join("e2e/tools").join(GVISOR.name);
    let mut find = GVISOR.command(&module, "list");
    find.args(["-m", "-f", "{{.Dir}}", "gvisor.dev/gvisor"]);
    let sources = step("find gVisor's sources", &mut find).await?;
    let source = PathBuf::from(sources.trim()).join("pkg/shim/v1/service.go");
    let text = std::fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    ensure!(text.contains(SCORE), "{} has no {SCORE:?}", source.display());

    let staging = target()
        .join("tools")
        .join(format!("gvisor-shim.tmp{}", std::process::id()));
    std::fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
    // The cache of modules is nobody's to change: its copy is built instead, by a go.mod that names it.
    let copy = staging.join("src");
    let mut copying = Command::new("cp");
    copying
        .args(["-r", "--no-preserve=mode"])
        .arg(sources.trim())
        .arg(&copy);
    step("copy gVisor's sources", &mut copying).await?;
    let changed = copy.join("pkg/shim/v1/service.go");
    std::fs::write(&changed, text.replace(SCORE, "oomScoreMaxKillable = 1"))
        .with_context(|| format!("write {}", changed.display()))?;
    let file = staging.join("go.mod");
    let text = std::fs::read_to_string(module.join("go.mod")).context("read gVisor's go.mod")?;
    let replace = format!("{text}\nreplace gvisor.dev/gvisor => {}\n", copy.display());
    std::fs::write(&file, replace).with_context(|| format!("write {}", file.display()))?;
    std::fs::copy(module.join("go.sum"), staging.join("go.sum")).context("copy gVisor's go.sum")?;
    let mut build = GVISOR.command(&module, "build");
    build
        .arg(format!("-modfile={}", file.display()))
        .arg("-o")
        .arg(staging.join("containerd-shim-runsc-v1"))
        .arg("gvisor.dev/gvisor/shim");
    step("build gVisor's shim without its OOM score", &mut build).await?;
    std::fs::remove_dir_all(&copy).with_context(|| format!("remove {}", copy.display()))?;
    symlink(programs.join("runsc"), staging.join("runsc")).context("link runsc")?;
    if let Err(error) = std::fs::rename(&staging, &directory)
        && !directory.exists()
    {
        return Err(error).with_context(|| format!("rename {} to {}", staging.display(), directory.display()));
    }
    Ok(directory)
}
