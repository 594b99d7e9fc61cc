//! The test binary, built out of containerd's module.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::prepare::{root, step, target};

/// What is changed in the sources, and where: image references, which the tests read before their flags; the root,
/// which goes where the run has a tmpfs; and the namespace, so that no two runs on a machine share cgroups.
const CHANGES: [(&str, &str, &str); 5] = [
    (
        "integration/images/image_list.go",
        "\"ghcr.io/containerd/volume-copy-up:2.2\"",
        "os.Getenv(\"E2E_REGISTRY\") + \"/volume-copy-up:2.2\"",
    ),
    (
        "integration/images/image_list.go",
        "\"ghcr.io/containerd/busybox:1.36\"",
        "os.Getenv(\"E2E_REGISTRY\") + \"/busybox:1.36\"",
    ),
    (
        "integration/images/image_list.go",
        "\"ghcr.io/containerd/volume-ownership:2.1\"",
        "os.Getenv(\"E2E_REGISTRY\") + \"/volume-ownership:2.1\"",
    ),
    (
        "integration/client/client_unix.go",
        "\"/var/lib/containerd-test\"",
        "\"/run/containerd-test-root\"",
    ),
    (
        "integration/client/client.go",
        "const (\n\ttestNamespace = \"testing\"\n)",
        "var testNamespace = os.Getenv(\"E2E_NAMESPACE\")",
    ),
];

const NAME: &str = "client.test";

/// The test binary, built unless that was done before.
pub async fn test_binary() -> Result<PathBuf> {
    let module = root().join("e2e/tools/containerd");
    let sums = module.join("go.sum");
    let mut hash = Sha256::new();
    hash.update(std::fs::read(&sums).with_context(|| format!("read {}", sums.display()))?);
    for (file, before, after) in CHANGES {
        hash.update([file, before, after].join("\0"));
    }
    let key: String = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let directory = target().join("tools").join(format!("client-{key}"));
    let binary = directory.join(NAME);
    if binary.exists() {
        return Ok(binary);
    }
    let staging = directory.with_extension(format!("tmp{}", std::process::id()));
    std::fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
    let sources = staging.join("src");
    copy_module(&module, &sources).await?;
    for (file, before, after) in CHANGES {
        change(&sources.join(file), before, after)?;
    }
    let mut build = Command::new("go");
    build
        .args(["test", "-vet=off", "-c", "-trimpath", "-buildvcs=false", "-o"])
        .arg(staging.join(NAME))
        .arg("./integration/client")
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .current_dir(&sources);
    step("build containerd's client suite (about a minute, once)", &mut build).await?;
    std::fs::remove_dir_all(&sources).with_context(|| format!("remove {}", sources.display()))?;
    // Complete or not there at all: another run may look at the same time.
    if let Err(error) = std::fs::rename(&staging, &directory)
        && !binary.exists()
    {
        return Err(error).with_context(|| format!("rename {} to {}", staging.display(), directory.display()));
    }
    Ok(binary)
}

/// A writable copy of the module; the cache's own is read-only.
async fn copy_module(module: &Path, sources: &Path) -> Result<()> {
    let mut find = Command::new("go");
    find.args(["mod", "download", "-json", "github.com/containerd/containerd/v2"])
        .env("GOWORK", "off")
        .current_dir(module);
    let answer = step("find containerd's sources", &mut find).await?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("read the answer of go mod download")?;
    let from = answer["Dir"].as_str().context("go mod download names no directory")?;
    let mut copy = Command::new("cp");
    copy.args(["-r", "--no-preserve=mode", "--"]).arg(from).arg(sources);
    step("copy containerd's sources", &mut copy).await?;
    Ok(())
}

fn change(file: &Path, before: &str, after: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    if !text.contains(before) {
        bail!("{}: `{before}` is not there any more", file.display());
    }
    std::fs::write(file, text.replace(before, after)).with_context(|| format!("write {}", file.display()))
}
