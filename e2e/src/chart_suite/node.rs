//! A node in a directory: a containerd with CRI, its configuration, and a systemd that restarts it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::systemd::{self, Unit};
use crate::containerd::Version;
use crate::prepare::Tools;

/// How the configuration begins, and which form it has.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub version: u8,
    pub imports: bool,
}

/// The forms that a containerd reads.
pub fn forms(version: Version) -> Vec<Form> {
    let of = |version, imports| Form { version, imports };
    match version {
        Version::V1 => vec![of(1, false), of(2, false), of(2, true)],
        Version::V2 => vec![of(2, false), of(2, true), of(3, false), of(3, true), of(4, true)],
    }
}

/// The form that the distribution's own packages have.
pub fn usual(version: Version) -> Form {
    match version {
        Version::V1 => Form {
            version: 2,
            imports: false,
        },
        Version::V2 => Form {
            version: 3,
            imports: true,
        },
    }
}

pub struct Node {
    pub directory: PathBuf,
    pub unit: Rc<Unit>,
    /// Who installs; another one is another release.
    pub owner: String,
    /// The shim that is installed.
    pub shim: PathBuf,
    pub distribution: &'static str,
    installer: PathBuf,
    systemd: JoinHandle<()>,
}

/// What the installer said.
pub struct Said {
    pub ok: bool,
    pub text: String,
}

impl Said {
    /// Its words, if it succeeded.
    pub fn ok(self) -> Result<String> {
        ensure!(self.ok, "the installer failed: {}", self.text);
        Ok(self.text)
    }

    /// Its words, if it refused with these among them.
    pub fn refused(self, words: &str) -> Result<String> {
        ensure!(!self.ok, "the installer did not refuse: {}", self.text);
        ensure!(self.text.contains(words), "{words:?} is not in: {}", self.text);
        Ok(self.text)
    }
}

impl Node {
    /// A node whose containerd runs.
    pub async fn start(tools: &Tools, version: Version, form: Form) -> Result<Self> {
        let node = Self::make(tools, version, form)?;
        node.unit.start().await?;
        Ok(node)
    }

    fn make(tools: &Tools, version: Version, form: Form) -> Result<Self> {
        let directory = new_directory()?;
        let binaries = match version {
            Version::V2 => tools.containerd_2.clone(),
            Version::V1 => tools.containerd_1.clone().map_err(anyhow::Error::msg)?,
        };
        for path in ["etc/containerd", "run/systemd", "opt"] {
            let path = directory.join(path);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        // The directory is the installer's root, while containerd's configuration names paths of the machine: below
        // this link both are the same.
        symlink("/tmp", directory.join("tmp")).context("link tmp")?;
        let config = directory.join("etc/containerd/config.toml");
        std::fs::write(&config, configuration(&directory, version, form)).context("write config.toml")?;
        let path = [&binaries, &tools.runc]
            .map(|path| path.display().to_string())
            .join(":");
        let unit = Rc::new(Unit::new(
            binaries.join("containerd"),
            config,
            format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            directory.join("containerd.log"),
            directory.join("run/containerd.sock"),
        ));
        let systemd = systemd::serve(&directory.join("run/systemd/private"), unit.clone())?;
        let node = Self {
            directory,
            unit,
            owner: "nucleus-system/one".to_owned(),
            shim: tools.shim.join("containerd-shim-nucleus-v2"),
            distribution: "containerd",
            installer: tools.installer.clone(),
            systemd,
        };
        *node.unit.watched.borrow_mut() = (node.installed_shim(), node.target(form));
        Ok(node)
    }

    /// The file that the handlers go into.
    fn target(&self, form: Form) -> PathBuf {
        let etc = self.directory.join("etc/containerd");
        if form.imports && form.version > 2 {
            etc.join("conf.d/nucleus.toml")
        } else {
            etc.join("config.toml")
        }
    }

    pub fn installed_shim(&self) -> PathBuf {
        self.directory.join("opt/nucleus/bin/containerd-shim-nucleus-v2")
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("etc/containerd/config.toml")
    }

    pub async fn install(&self, more: &[&str]) -> Result<Said> {
        let shim = format!("--shim={}", self.shim.display());
        let args = [&["install", &shim], more].concat();
        self.run(&args).await
    }

    pub async fn uninstall(&self, more: &[&str]) -> Result<Said> {
        self.run(&[&["uninstall"], more].concat()).await
    }

    async fn run(&self, args: &[&str]) -> Result<Said> {
        let directory = self.directory.display();
        let output = Command::new(&self.installer)
            .args(args)
            .arg(format!("--root={directory}"))
            .arg(format!("--distribution={}", self.distribution))
            .arg(format!("--owner={}", self.owner))
            .arg(format!("--config={directory}/etc/containerd/config.toml"))
            .arg(format!("--socket={directory}/run/containerd.sock"))
            .arg(format!("--state={directory}/run/containerd"))
            .arg(format!("--directory={directory}/opt/nucleus"))
            .arg(format!("--termination-log={directory}/termination-log"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run the installer")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let log = self.directory.join("termination-log");
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            ensure!(
                !told.is_empty() && text.contains(&told),
                "the termination message is {told:?}, the error {text:?}"
            );
        }
        Ok(Said {
            ok: output.status.success(),
            text,
        })
    }

    /// Every file that the installer may touch, with its bytes; directories too, as those come and go.
    pub fn tree(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.directory.join("etc"), self.directory.join("opt")];
        while let Some(directory) = waiting.pop() {
            let entries = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    found.insert(path.clone(), Vec::new());
                    waiting.push(path);
                } else {
                    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                    found.insert(path, bytes);
                }
            }
        }
        Ok(found)
    }

    /// Puts a file system that cannot be written to where a path is.
    pub fn make_read_only(&self, path: &str) -> Result<ReadOnly> {
        let path = self.directory.join(path);
        mount("e2e", &path, "tmpfs", MountFlags::RDONLY, None)
            .with_context(|| format!("mount on {}", path.display()))?;
        Ok(ReadOnly(path))
    }
}

/// Ends with this value.
pub struct ReadOnly(PathBuf);

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.systemd.abort();
        // A test that failed leaves containerd running; it must be gone before its directory goes.
        self.unit.kill_now();
        unmount_below(&self.directory);
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("remove {}: {error}", self.directory.display());
        }
    }
}

fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mark = format!("{}/", directory.display());
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&mark))
        .collect();
    for point in points.into_iter().rev() {
        if let Err(error) = unmount(point, UnmountFlags::DETACH) {
            eprintln!("unmount {point}: {error}");
        }
    }
}

fn new_directory() -> Result<PathBuf> {
    for number in 0..1000 {
        let path = PathBuf::from(format!("/tmp/e2e-node-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
        }
    }
    bail!("no free name for a node's directory")
}

/// A configuration such as an administrator has: with comments, and with settings of the CRI plugin that have to stay.
fn configuration(directory: &Path, version: Version, form: Form) -> String {
    let directory = directory.display();
    let mut text = String::from("# Made by hand; see the wiki before you change it.\n");
    if form.version > 1 {
        text.push_str(&format!("version = {}\n", form.version));
    }
    if form.imports {
        text.push_str(&format!("imports = [\"{directory}/etc/containerd/conf.d/*.toml\"]\n"));
    }
    text.push_str(&format!(
        "root = \"{directory}/root\"\nstate = \"{directory}/run/containerd\"\n\n"
    ));
    if form.version > 3 {
        text.push_str(&format!(
            "[plugins.'io.containerd.server.v1.grpc']\n  address = \"{directory}/run/containerd.sock\"\n\
             [plugins.'io.containerd.server.v1.ttrpc']\n  address = \"{directory}/run/ttrpc.sock\"\n"
        ));
    } else {
        text.push_str(&format!(
            "[grpc]\n  address = \"{directory}/run/containerd.sock\"\n[ttrpc]\n  address = \
             \"{directory}/run/ttrpc.sock\"\n"
        ));
    }
    let cni = format!(".cni]\n  conf_dir = \"{directory}/cni\"\n  bin_dir = \"{directory}/cni\"\n");
    let pause = crate::chart_suite::cri::PAUSE;
    if form.version > 2 {
        text.push_str(&format!(
            "\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"{pause}\" # ours\n\
             [plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.cri.v1.runtime'{cni}"
        ));
    } else {
        let plugin = if form.version == 1 {
            "plugins.cri"
        } else {
            "plugins.\"io.containerd.grpc.v1.cri\""
        };
        text.push_str(&format!(
            "\n[{plugin}]\n  sandbox_image = \"{pause}\" # ours\n  restrict_oom_score_adj = true\n[{plugin}{cni}"
        ));
    }
    // The last line has no end, as editors leave it.
    text.push_str(&format!("# tested with {}", version.name()));
    text
}
