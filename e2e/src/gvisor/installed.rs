//! A runsc where nucleus accepts one: below directories that are root's alone, which `target/` need not be.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where the directories of test runs are made: on every distribution root's alone, and not mounted noexec.
const ABOVE: &str = "/var/lib";
const PREFIX: &str = "nucleus-e2e-";

/// A directory of this run with runsc and configurations; removed when this is dropped.
pub struct Installed {
    directory: PathBuf,
}

impl Installed {
    /// Copies `runsc` there. What runs before this one left, if they were killed, goes.
    pub fn new(runsc: &Path) -> Result<Self> {
        for entry in std::fs::read_dir(ABOVE)
            .with_context(|| format!("read {ABOVE}"))?
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        let directory = Path::new(ABOVE).join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        let installed = Self { directory };
        let copy = installed.runsc();
        std::fs::copy(runsc, &copy).with_context(|| format!("copy {} to {}", runsc.display(), copy.display()))?;
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        Ok(installed)
    }

    pub fn runsc(&self) -> PathBuf {
        self.directory.join("runsc")
    }

    /// Writes a node's configuration that runs containers in gVisor, and has `more` to say.
    pub fn configuration(&self, more: &str) -> Result<PathBuf> {
        let path = self.directory.join("config.toml");
        let runsc = self.runsc();
        let text = format!(
            "version = 1\nruntime = \"gvisor\"\n{more}\n[gvisor]\npath = \"{}\"\n",
            runsc.display()
        );
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("remove {}: {error}", self.directory.display());
        }
    }
}
