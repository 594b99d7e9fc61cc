//! Pods and their containers, made through `crictl` as kubelet makes them.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::containerd::Version;
use crate::context::{Output, Runtime};
use crate::prepare::Tools;

use super::daemon::{CriDaemon, Kit};
use super::images::BUSYBOX;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a container runs that is only there.
pub const FOREVER: [&str; 2] = ["sleep", "100000"];

/// A pod or container that is nothing special.
pub fn plain(_: &mut Value) {}

/// What one behaviour works with.
pub struct Cri<'a> {
    pub daemon: &'a CriDaemon,
    pub runtime: Runtime,
    /// For volumes, logs and configurations; nobody else's.
    pub directory: PathBuf,
    /// For another containerd.
    pub parts: (&'a Tools, &'a Kit),
    counter: Cell<usize>,
}

impl<'a> Cri<'a> {
    pub fn new(parts: (&'a Tools, &'a Kit), daemon: &'a CriDaemon, runtime: Runtime, number: usize) -> Result<Self> {
        let directory = daemon.directory().join(format!("b{number}"));
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self {
            daemon,
            runtime,
            directory,
            parts,
            counter: Cell::new(0),
        })
    }

    /// The same place with another handler.
    pub fn beside(other: &Self, runtime: Runtime) -> Self {
        Self {
            daemon: other.daemon,
            runtime,
            directory: other.directory.clone(),
            parts: other.parts,
            counter: Cell::new(0),
        }
    }

    pub fn is_containerd_2(&self) -> bool {
        self.daemon.version == Version::V2
    }

    fn new_name(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        let home = self.directory.file_name().and_then(|name| name.to_str()).unwrap_or("b");
        format!("{home}-{}-{}", self.runtime.short_name(), self.counter.get())
    }

    fn write(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let file = self.directory.join(format!("{name}.json"));
        std::fs::write(&file, config.to_string()).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// Runs `crictl` to its end.
    pub async fn crictl(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.daemon.crictl();
        let output = command
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run crictl")?;
        let code = output.status.code().and_then(|code| u32::try_from(code).ok());
        Ok(Output {
            code: code.unwrap_or(u32::MAX),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    async fn done(&self, args: &[&str]) -> Result<String> {
        let output = self.crictl(args).await?;
        let stdout = output.ok().with_context(|| format!("crictl {}", args.join(" ")))?;
        Ok(stdout.trim().to_owned())
    }

    /// Removes every pod, whatever it is like.
    pub async fn remove_all(&self) -> Result<()> {
        self.done(&["rmp", "--all", "--force"]).await?;
        Ok(())
    }

    /// A pod; `change` makes it other than an ordinary one.
    pub async fn pod(&self, change: impl FnOnce(&mut Value)) -> Result<Pod<'_, 'a>> {
        self.pod_of(self.runtime.short_name(), change).await
    }

    /// A pod of another handler.
    pub async fn pod_of(&self, handler: &str, change: impl FnOnce(&mut Value)) -> Result<Pod<'_, 'a>> {
        let name = self.new_name();
        let mut config = json!({
            "metadata": {"name": name, "namespace": "e2e", "uid": name, "attempt": 0},
            "log_directory": self.directory,
            "linux": {},
        });
        change(&mut config);
        let file = self.write(&name, &config)?;
        let path = file.display().to_string();
        let id = self.done(&["runp", "--runtime", handler, &path]).await?;
        Ok(Pod { cri: self, id, file })
    }

    /// Polls until a condition holds; fails with what was waited for.
    pub async fn eventually(&self, what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !condition().await? {
            if begun.elapsed() > PATIENCE {
                bail!("after {} s still not: {what}", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// A sandbox.
pub struct Pod<'c, 'a> {
    cri: &'c Cri<'a>,
    pub id: String,
    file: PathBuf,
}

impl<'c, 'a> Pod<'c, 'a> {
    /// A container that was created, and is not started.
    pub async fn create(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> Result<PodContainer<'c, 'a>> {
        let name = self.cri.new_name();
        let mut config = json!({
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": BUSYBOX},
            "command": args,
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        change(&mut config);
        let file = self.cri.write(&name, &config)?;
        let (container, pod) = (file.display().to_string(), self.file.display().to_string());
        let id = self
            .cri
            .done(&["create", "--no-pull", &self.id, &container, &pod])
            .await?;
        let log = self.cri.directory.join(format!("{name}.log"));
        Ok(PodContainer { cri: self.cri, id, log })
    }

    /// A running container.
    pub async fn start(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> Result<PodContainer<'c, 'a>> {
        let container = self.create(args, change).await?;
        self.cri.done(&["start", &container.id]).await?;
        Ok(container)
    }

    pub async fn is_ready(&self) -> Result<bool> {
        let text = self.cri.done(&["inspectp", "--output", "json", &self.id]).await?;
        let status: Value = serde_json::from_str(&text).context("read crictl inspectp")?;
        Ok(status["status"]["state"] == "SANDBOX_READY")
    }

    /// Stops and removes it with everything in it.
    pub async fn remove(&self) -> Result<()> {
        self.cri.done(&["stopp", &self.id]).await?;
        self.cri.done(&["rmp", &self.id]).await?;
        Ok(())
    }
}

/// A container of a pod.
pub struct PodContainer<'c, 'a> {
    cri: &'c Cri<'a>,
    pub id: String,
    log: PathBuf,
}

impl PodContainer<'_, '_> {
    /// Runs a shell script in it, as a probe would be. What it wrote is without its last line's end.
    pub async fn sh(&self, script: &str) -> Result<Output> {
        self.exec(60, &["sh", "-c", script]).await
    }

    /// ExecSync with a limit in seconds.
    pub async fn exec(&self, seconds: u32, args: &[&str]) -> Result<Output> {
        let limit = seconds.to_string();
        let first = ["exec", "--sync", "--timeout", &limit, &self.id];
        let mut output = self.cri.crictl(&[&first[..], args].concat()).await?;
        // crictl adds line ends of its own.
        output.stdout.truncate(output.stdout.trim_end().len());
        Ok(output)
    }

    pub async fn stop(&self, seconds: u32) -> Result<()> {
        self.cri
            .done(&["stop", "--timeout", &seconds.to_string(), &self.id])
            .await?;
        Ok(())
    }

    pub async fn remove(&self) -> Result<()> {
        self.cri.done(&["rm", &self.id]).await?;
        Ok(())
    }

    /// `crictl inspect`: `status`, and what containerd adds in `info`.
    pub async fn inspect(&self) -> Result<Value> {
        let text = self.cri.done(&["inspect", "--output", "json", &self.id]).await?;
        serde_json::from_str(&text).context("read crictl inspect")
    }

    /// Its status once it has ended.
    pub async fn ended(&self) -> Result<Value> {
        let mut status = Value::Null;
        self.cri
            .eventually("the container has ended", async || {
                status = self.inspect().await?["status"].take();
                Ok(status["state"] == "CONTAINER_EXITED")
            })
            .await?;
        Ok(status)
    }

    /// What it wrote to its log, without CRI's time stamps.
    pub fn log(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        // `<time> <stream> <P|F> <text>`
        Ok(text
            .lines()
            .map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default()))
            .collect())
    }
}
