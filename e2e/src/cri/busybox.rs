//! A busybox for the tests' images, built from the distribution's sources: the packaged one runs its applets inside the
//! shell, so that masking a program has no effect, and lacks some that critest calls.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::prepare::{step, target};

/// What is switched on; everything else is off.
const OPTIONS: &str = include_str!("busybox.config");

/// Source lines for whatever the machine's own package lists name, in a place of their own: the machine's lists stay.
const FETCH: &str = r#"
set -e
mkdir -p lists/partial cache
apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | sort -u > sources.list
set -- -qq -o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=- \
    -o "Dir::State::Lists=$PWD/lists" -o "Dir::Cache=$PWD/cache"
apt-get "$@" update
apt-get "$@" source --download-only busybox
mkdir src
tar -xf busybox_*.orig.tar.* -C src --strip-components=1
"#;

/// busybox's old kconfig reads no list of choices: they are put into the file that has everything off.
const BUILD: &str = r#"
set -e
make allnoconfig
for option in $OPTIONS; do
    sed -i "s/^# CONFIG_$option is not set/CONFIG_$option=y/" .config
done
yes '' | make oldconfig
make -j2 busybox
"#;

/// The static busybox, built unless that was done before.
pub async fn busybox() -> Result<PathBuf> {
    let key: String = Sha256::digest([OPTIONS, BUILD].concat())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let directory = target().join("tools").join(format!("busybox-{key}"));
    let binary = directory.join("busybox");
    if binary.exists() {
        return Ok(binary);
    }
    let staging = directory.with_extension(format!("tmp{}", std::process::id()));
    std::fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
    step("fetch busybox's sources", &mut shell(FETCH, &staging)).await?;
    let sources = staging.join("src");
    let words: Vec<&str> = OPTIONS.lines().filter(|line| !line.starts_with('#')).collect();
    let mut build = shell(BUILD, &sources);
    build.env("OPTIONS", words.join(" "));
    step("build busybox for the tests' images (half a minute, once)", &mut build).await?;
    let done = staging.join("done");
    std::fs::create_dir(&done).with_context(|| format!("make {}", done.display()))?;
    std::fs::copy(sources.join("busybox"), done.join("busybox")).context("take busybox out of its sources")?;
    // Complete or not there at all: another run may look at the same time.
    if let Err(error) = std::fs::rename(&done, &directory)
        && !binary.exists()
    {
        return Err(error).with_context(|| format!("rename {} to {}", done.display(), directory.display()));
    }
    std::fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    Ok(binary)
}

fn shell(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(directory);
    command
}
