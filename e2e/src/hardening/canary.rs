//! Something on the host that no container may read or change.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::CANARIES;
use crate::context::{Ctx, Output};

/// A directory of the host's with files in it, and what it was like at first.
pub struct Canary {
    pub directory: PathBuf,
    /// A word that is nowhere else.
    pub word: String,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    /// A new one, in the test's own directory.
    pub fn plant(c: &Ctx) -> Result<Self> {
        let number = c.new_exec_id();
        let (word, directory) = (
            format!("unread-{}-{number}", std::process::id()),
            format!("canary-{number}"),
        );
        let directory = c.directory.join(directory);
        std::fs::create_dir_all(directory.join("inner")).context("make the canary")?;
        // Also under the name that CVE-2026-41579 deletes.
        for file in ["file", "ptmx", "inner/file"] {
            std::fs::write(directory.join(file), &word).context("write the canary")?;
        }
        Ok(Self {
            before: tree(&directory)?,
            directory,
            word,
        })
    }

    pub fn file(&self) -> PathBuf {
        self.directory.join("file")
    }

    /// Nothing in it was changed, and nothing mounted on it.
    pub fn is_untouched(&self) -> Result<()> {
        CANARIES.set(CANARIES.get() + 1);
        let now = tree(&self.directory)?;
        ensure!(
            now == self.before,
            "the canary was changed: {:?} to {now:?}",
            self.before
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let name = self.directory.display().to_string();
        ensure!(!mounts.contains(&name), "something is mounted on the canary");
        Ok(())
    }

    /// What a container wrote does not have it.
    pub fn is_unread(&self, output: &Output) -> Result<()> {
        let seen = output.stdout.contains(&self.word) || output.stderr.contains(&self.word);
        ensure!(!seen, "the canary was read: {output:?}");
        Ok(())
    }
}

/// Every path below a directory: what it is, whose, and what it holds.
fn tree(directory: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(path) = ahead.pop() {
        let stat = std::fs::symlink_metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        let content = if stat.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
            String::new()
        } else if stat.is_symlink() {
            std::fs::read_link(&path)?.display().to_string()
        } else if stat.is_file() {
            String::from_utf8_lossy(&std::fs::read(&path)?).into_owned()
        } else {
            // A FIFO that an attack made would wait for a writer.
            String::new()
        };
        let about = format!(
            "{:o} {} {} {} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev()
        );
        found.insert(path, about);
    }
    Ok(found)
}

/// A root file system on the host that the test can put hostile things into.
pub fn root(c: &Ctx, name: &str) -> Result<PathBuf> {
    let root = c.directory.join(name);
    for directory in ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr"] {
        let path = root.join(directory);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    for (from, to) in [(&c.tools.busybox, "bin/busybox"), (&c.tools.probe, "bin/probe")] {
        std::fs::copy(from, root.join(to)).with_context(|| format!("copy {}", from.display()))?;
    }
    for applet in [
        "sh", "cat", "ls", "id", "true", "echo", "sleep", "mount", "mkdir", "touch", "head", "pwd", "dd", "cp",
        "timeout",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).context("link an applet")?;
    }
    Ok(root)
}

/// Puts a link where something else was.
pub fn replace_by_link(path: &Path, target: &str) -> Result<()> {
    if let Ok(stat) = std::fs::symlink_metadata(path) {
        if stat.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    std::os::unix::fs::symlink(target, path).with_context(|| format!("link {}", path.display()))
}
