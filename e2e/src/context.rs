//! What one behaviour test works with: the containerd, the runtime under test, a namespace, names that nobody else has.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use containerd_client::services::v1::{DeleteTaskRequest, KillRequest};
use containerd_client::tonic::Code;
use serde_json::Value;
use tokio::time::sleep;

use crate::api::Api;
use crate::container::Builder;
use crate::containerd::{Daemon, Version};
use crate::events::Events;
use crate::image::Image;
use crate::prepare::Tools;

/// The runtimes that behaviours are tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// containerd's own, as the yardstick
    #[value(name = "io.containerd.runc.v2", alias = "runc")]
    Runc,
    /// Ours
    #[value(name = "io.containerd.nucleus.v2", alias = "nucleus")]
    Nucleus,
    /// Ours with `runtime = "gvisor"`: what the suite `gvisor` runs on
    #[value(skip)]
    Gvisor,
    /// Ours with `sandboxer = "shim"`, in the suite `cri`: pods whose sandbox the shim makes, without a pause container
    #[value(name = "nucleus-sandboxed")]
    Sandboxed,
    /// gVisor's own shim, to be measured beside
    #[value(skip)]
    Runsc,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Nucleus | Self::Gvisor | Self::Sandboxed => "io.containerd.nucleus.v2",
            Self::Runsc => "io.containerd.runsc.v1",
        }
    }

    pub fn short_name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Nucleus => "nucleus",
            Self::Gvisor => "gvisor",
            Self::Sandboxed => "nucleus-sandboxed",
            Self::Runsc => "runsc",
        }
    }

    /// The shim's file name, as containerd derives it.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Runc => "containerd-shim-runc-v2",
            Self::Nucleus | Self::Gvisor | Self::Sandboxed => "containerd-shim-nucleus-v2",
            Self::Runsc => "containerd-shim-runsc-v1",
        }
    }
}

/// One test's surroundings.
pub struct Ctx {
    pub runtime: Runtime,
    pub daemon: Rc<Daemon>,
    pub tools: Rc<Tools>,
    pub image: Rc<Image>,
    pub namespace: String,
    /// For FIFOs, pid files and whatever else the test wants to put somewhere; removed after it.
    pub directory: PathBuf,
    number: usize,
    counter: Cell<usize>,
    ids: RefCell<Vec<String>>,
    groups: RefCell<Vec<String>>,
    events: Rc<Events>,
}

impl Ctx {
    pub fn new(runtime: Runtime, worker: &Worker, number: usize) -> Result<Self> {
        let directory = worker.daemon.directory().join(format!("t{number}"));
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self {
            runtime,
            daemon: worker.daemon.clone(),
            tools: worker.tools.clone(),
            image: worker.image.clone(),
            namespace: worker.namespace.clone(),
            directory,
            number,
            counter: Cell::new(0),
            ids: RefCell::default(),
            groups: RefCell::default(),
            events: worker.events.clone(),
        })
    }

    pub fn is_nucleus(&self) -> bool {
        matches!(self.runtime, Runtime::Nucleus | Runtime::Gvisor | Runtime::Sandboxed)
    }

    pub fn is_containerd_2(&self) -> bool {
        self.daemon.version == Version::V2
    }

    /// Either text, by the runtime under test.
    pub fn by_runtime<T>(&self, runc: T, nucleus: T) -> T {
        if self.is_nucleus() { nucleus } else { runc }
    }

    /// A new container's name, cleaned up after the test.
    pub fn new_id(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        let id = format!("t{}-{}", self.number, self.counter.get());
        self.own(&id);
        id
    }

    /// A new exec's name.
    pub fn new_exec_id(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("e{}", self.counter.get())
    }

    /// Takes a container's name into the cleaning after the test.
    pub fn own(&self, id: &str) {
        self.ids.borrow_mut().push(id.to_owned());
    }

    /// Tells of a name by which shims are grouped, so that its socket is looked for afterwards.
    pub fn own_group(&self, group: &str) {
        self.groups.borrow_mut().push(group.to_owned());
    }

    /// runc's shims leave their sockets when they are killed, and those of groups always: they are removed, not
    /// counted.
    pub fn forgive_sockets_of_runc(&self) {
        if !self.is_nucleus() {
            for name in self.socket_names() {
                std::fs::remove_file(crate::leaks::socket_path(&self.daemon, &self.namespace, &name)).ok();
            }
        }
    }

    /// What containerd logged about the containers that an error names, or else about all of this test.
    pub fn log(&self, error: &str) -> String {
        let words: Vec<&str> = error.split_whitespace().collect();
        let named = self
            .ids
            .borrow()
            .iter()
            .find(|id| words.contains(&id.as_str()))
            .cloned();
        let lines = match named {
            Some(id) => self.daemon.log_about(&id, 12),
            None => self.daemon.log_about(&format!("t{}-", self.number), 12),
        };
        if lines.is_empty() {
            String::new()
        } else {
            format!("\ncontainerd's log:\n  {}", lines.join("\n  "))
        }
    }

    /// The names under which this test's shims may have sockets.
    pub fn socket_names(&self) -> Vec<String> {
        self.ids
            .borrow()
            .iter()
            .chain(self.groups.borrow().iter())
            .cloned()
            .collect()
    }

    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.daemon.channel()?, &self.namespace))
    }

    /// Events of this namespace since the worker began.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// A container of the test image, yet to be described.
    pub fn container(&self) -> Builder<'_> {
        Builder::new(self)
    }

    /// A copy of the image's files that belongs to the host's user 100000 and up, for containers with mapped ids.
    pub async fn mapped_root(&self) -> Result<PathBuf> {
        let root = self.directory.join("mapped-root");
        for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr/data"] {
            let path = root.join(directory);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        for (from, to) in [(&self.tools.busybox, "bin/busybox"), (&self.tools.probe, "bin/probe")] {
            std::fs::copy(from, root.join(to)).with_context(|| format!("copy {}", from.display()))?;
        }
        for applet in ["sh", "id", "head", "wc", "cat", "true", "echo", "ls", "touch", "stat"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).context("link an applet")?;
        }
        let owner = Some(rustix::fs::Uid::from_raw(100_000));
        let group = Some(rustix::fs::Gid::from_raw(100_000));
        for path in ["", "bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "usr/data"] {
            let path = root.join(path);
            rustix::fs::chown(&path, owner, group).with_context(|| format!("chown {}", path.display()))?;
        }
        // Mapped users have to get here.
        for path in [self.daemon.directory(), &self.directory] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .with_context(|| format!("chmod {}", path.display()))?;
        }
        Ok(root)
    }

    /// Runs a command in a new container and gives back what it wrote and how it ended.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        self.container().args(args).output().await
    }

    /// Runs `probe` in a container whose spec was changed, and gives back what it saw.
    pub async fn probe(&self, change: impl FnOnce(&mut Value)) -> Result<Value> {
        self.container().args(&["probe"]).spec(change).output().await?.json()
    }

    /// Runs `ctr` in this test's namespace to its end.
    pub async fn ctr(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.daemon.ctr(&self.namespace);
        command
            .args(args)
            .stdin(std::process::Stdio::null())
            .current_dir(&self.directory);
        let output = command.output().await.context("run ctr")?;
        Ok(Output {
            code: output
                .status
                .code()
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or(u32::MAX),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Polls a condition until it holds; fails with what was waited for.
    pub async fn eventually(&self, what: &str, condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        self.within(10, what, condition).await
    }

    /// The same with another limit, in seconds: for what takes longer than a runtime does.
    pub async fn within(
        &self,
        seconds: u64,
        what: &str,
        mut condition: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let (begun, patience) = (Instant::now(), crate::node::patience(seconds));
        while !condition().await? {
            if begun.elapsed() > patience {
                bail!("after {} s still not: {what}", patience.as_secs());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends and removes whatever this test made. What cannot be removed is the test's failure.
    pub async fn clean_up(&self) -> Result<()> {
        let api = self.api()?;
        let mut problems = Vec::new();
        let ids: Vec<String> = self.ids.borrow().clone();
        for id in ids.iter().rev() {
            if let Err(error) = end_task(&api, id).await {
                problems.push(format!("{error:#}"));
            }
            for outcome in [api.delete_container(id).await, api.remove_snapshot(id).await] {
                if let Err(status) = outcome
                    && status.code() != Code::NotFound
                {
                    problems.push(format!("clean up {id}: {}", status.message()));
                }
            }
        }
        // `ctr task attach` removes the directory of the streams itself.
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            problems.push(format!("remove {}: {error}", self.directory.display()));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            bail!("{}", problems.join("\n"))
        }
    }
}

/// Kills a task if there is one and deletes it.
pub async fn end_task(api: &Api, id: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        // A paused or just created task may need more than one attempt: the state of things decides, not these replies.
        let request = KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            all: true,
            ..KillRequest::default()
        };
        api.tasks().kill(api.request(request)).await.ok();
        let request = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        match api.tasks().delete(api.request(request)).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if begun.elapsed() > crate::node::patience(10) => {
                bail!("delete the task {id}: {}", status.message());
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// How a program ended and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub code: u32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output, if it ended with 0.
    pub fn ok(&self) -> Result<&str> {
        if self.code != 0 {
            bail!("ended with {}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(&self.stdout)
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        let text = self.ok()?;
        serde_json::from_str(text).with_context(|| format!("not JSON: {text:?} {:?}", self.stderr))
    }
}

/// What the tests of one worker share.
pub struct Worker {
    pub daemon: Rc<Daemon>,
    pub tools: Rc<Tools>,
    pub image: Rc<Image>,
    pub namespace: String,
    pub events: Rc<Events>,
}

impl Worker {
    /// Brings the image into a namespace and listens to its events.
    pub async fn new(daemon: Rc<Daemon>, tools: Rc<Tools>, image: Rc<Image>, namespace: String) -> Result<Self> {
        daemon.import(&namespace, &image.tar).await?;
        let events = Rc::new(Events::subscribe(&Api::new(daemon.channel()?, &namespace), &namespace).await?);
        Ok(Self {
            daemon,
            tools,
            image,
            namespace,
            events,
        })
    }
}
