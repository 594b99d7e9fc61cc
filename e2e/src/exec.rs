//! A process of a container, the first or a later one: its streams, its state, its end.

use std::cell::{Cell, RefCell};

use anyhow::{Context, Result};
use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest, ExecProcessRequest, GetRequest,
    KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use containerd_client::types::v1::{Process as State, Status};
use prost_types::Any;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use crate::api::{PROCESS_TYPE, json_any};
use crate::context::{Ctx, Output};
use crate::io::{Capture, make_fifo};
use crate::spec;

/// Which streams a process gets.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub terminal: bool,
    /// Instead of the test's own FIFOs.
    pub uris: Option<[String; 3]>,
}

/// A process that containerd knows.
pub struct Process<'a> {
    pub ctx: &'a Ctx,
    container: String,
    pub exec_id: String,
    pub pid: Cell<u32>,
    pub uris: [String; 3],
    pub stdout: Capture,
    pub stderr: Capture,
    stdin: RefCell<Option<pipe::Sender>>,
}

impl<'a> Process<'a> {
    /// Opens the client's side of the streams; the process itself is still to be made.
    pub fn new(ctx: &'a Ctx, container: &str, exec_id: &str, streams: &Streams) -> Result<Self> {
        let mut process = Self {
            ctx,
            container: container.to_owned(),
            exec_id: exec_id.to_owned(),
            pid: Cell::new(0),
            uris: streams.uris.clone().unwrap_or_default(),
            stdout: Capture::default(),
            stderr: Capture::default(),
            stdin: RefCell::new(None),
        };
        if streams.uris.is_some() {
            return Ok(process);
        }
        let path = |stream: &str| ctx.directory.join(format!("{container}{exec_id}-{stream}"));
        if streams.stdin {
            let path = path("stdin");
            make_fifo(&path)?;
            // Opened for both, so that it opens at once; the shim's own end decides when the process sees the end.
            let sender = pipe::OpenOptions::new()
                .read_write(true)
                .open_sender(&path)
                .context("open stdin")?;
            process.stdin.replace(Some(sender));
            process.uris[0] = path.display().to_string();
        }
        process.stdout = Capture::of_new_fifo(&path("stdout"))?;
        process.uris[1] = path("stdout").display().to_string();
        if !streams.terminal {
            process.stderr = Capture::of_new_fifo(&path("stderr"))?;
            process.uris[2] = path("stderr").display().to_string();
        }
        Ok(process)
    }

    pub async fn start(&self) -> Result<()> {
        let api = self.ctx.api()?;
        let request = StartRequest {
            container_id: self.container.clone(),
            exec_id: self.exec_id.clone(),
        };
        let response = api.tasks().start(api.request(request)).await.context("start")?;
        self.pid.set(response.into_inner().pid);
        Ok(())
    }

    /// Waits for its end; the exit status.
    pub async fn wait(&self) -> Result<u32> {
        let api = self.ctx.api()?;
        let request = WaitRequest {
            container_id: self.container.clone(),
            exec_id: self.exec_id.clone(),
        };
        Ok(api
            .tasks()
            .wait(api.request(request))
            .await
            .context("wait")?
            .into_inner()
            .exit_status)
    }

    pub async fn kill(&self, signal: i32) -> Result<()> {
        self.kill_with(signal, false).await
    }

    pub async fn kill_all(&self, signal: i32) -> Result<()> {
        self.kill_with(signal, true).await
    }

    async fn kill_with(&self, signal: i32, all: bool) -> Result<()> {
        let api = self.ctx.api()?;
        let request = KillRequest {
            container_id: self.container.clone(),
            exec_id: self.exec_id.clone(),
            signal: signal.unsigned_abs(),
            all,
        };
        api.tasks().kill(api.request(request)).await.context("kill")?;
        Ok(())
    }

    pub async fn state(&self) -> Result<State> {
        let api = self.ctx.api()?;
        let request = GetRequest {
            container_id: self.container.clone(),
            exec_id: self.exec_id.clone(),
        };
        let response = api.tasks().get(api.request(request)).await.context("get")?;
        response.into_inner().process.context("a reply without a process")
    }

    pub async fn status(&self) -> Result<Status> {
        Ok(self.state().await?.status())
    }

    /// Deletes the task, or the exec's record; the exit status in the reply.
    pub async fn delete(&self) -> Result<u32> {
        Ok(self.delete_reply().await?.exit_status)
    }

    pub async fn delete_reply(&self) -> Result<DeleteResponse> {
        let api = self.ctx.api()?;
        let container_id = self.container.clone();
        let response = if self.exec_id.is_empty() {
            api.tasks()
                .delete(api.request(DeleteTaskRequest { container_id }))
                .await
        } else {
            let request = DeleteProcessRequest {
                container_id,
                exec_id: self.exec_id.clone(),
            };
            api.tasks().delete_process(api.request(request)).await
        };
        Ok(response.context("delete")?.into_inner())
    }

    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let api = self.ctx.api()?;
        let (container_id, exec_id) = (self.container.clone(), self.exec_id.clone());
        let request = ResizePtyRequest {
            container_id,
            exec_id,
            width,
            height,
        };
        api.tasks().resize_pty(api.request(request)).await.context("resize")?;
        Ok(())
    }

    pub async fn write(&self, text: &str) -> Result<()> {
        let mut sender = self.stdin.borrow_mut().take().context("this process has no stdin")?;
        sender.write_all(text.as_bytes()).await.context("write to stdin")?;
        self.stdin.replace(Some(sender));
        Ok(())
    }

    /// Closes the client's end of stdin alone.
    pub fn drop_stdin(&self) {
        self.stdin.take();
    }

    /// Has the shim close its end of stdin.
    pub async fn close_io(&self) -> Result<()> {
        let api = self.ctx.api()?;
        let (container_id, exec_id) = (self.container.clone(), self.exec_id.clone());
        let request = CloseIoRequest {
            container_id,
            exec_id,
            stdin: true,
        };
        api.tasks()
            .close_io(api.request(request))
            .await
            .context("close stdin")?;
        Ok(())
    }

    /// Both ends: the process reads the end of its input.
    pub async fn end_stdin(&self) -> Result<()> {
        self.drop_stdin();
        self.close_io().await
    }

    /// Waits for its end and for the end of its streams.
    pub async fn output(&self) -> Result<Output> {
        let code = self.wait().await?;
        let stdout = if self.uris[1].is_empty() {
            String::new()
        } else {
            self.stdout.to_end().await?
        };
        let stderr = if self.uris[2].is_empty() {
            String::new()
        } else {
            self.stderr.to_end().await?
        };
        Ok(Output { code, stdout, stderr })
    }
}

/// A process to be added to a container.
pub struct ExecBuilder<'a> {
    ctx: &'a Ctx,
    container: String,
    id: String,
    process: Value,
    streams: Streams,
    raw: Option<Any>,
}

impl<'a> ExecBuilder<'a> {
    pub fn new(ctx: &'a Ctx, container: &str, args: &[&str]) -> Self {
        let process = json!({
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": [spec::PATH],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": spec::CAPABILITIES,
                "effective": spec::CAPABILITIES,
                "permitted": spec::CAPABILITIES,
            },
        });
        let id = ctx.new_exec_id();
        Self {
            ctx,
            container: container.to_owned(),
            id,
            process,
            streams: Streams::default(),
            raw: None,
        }
    }

    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    pub fn process(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.process);
        self
    }

    /// These bytes instead of a described process.
    pub fn raw(mut self, spec: Any) -> Self {
        self.raw = Some(spec);
        self
    }

    pub fn stdin(mut self) -> Self {
        self.streams.stdin = true;
        self
    }

    pub fn terminal(mut self) -> Self {
        self.streams.terminal = true;
        self.process["terminal"] = json!(true);
        self
    }

    pub fn streams(mut self, uris: [&str; 3]) -> Self {
        self.streams.uris = Some(uris.map(str::to_owned));
        self
    }

    /// Adds the process without starting it.
    pub async fn create(self) -> Result<Process<'a>> {
        let process = Process::new(self.ctx, &self.container, &self.id, &self.streams)?;
        let [stdin, stdout, stderr] = process.uris.clone();
        let api = self.ctx.api()?;
        let request = ExecProcessRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            stdin,
            stdout,
            stderr,
            terminal: self.streams.terminal,
            spec: Some(self.raw.unwrap_or_else(|| json_any(PROCESS_TYPE, &self.process))),
        };
        api.tasks()
            .exec(api.request(request))
            .await
            .with_context(|| format!("exec {}", self.id))?;
        Ok(process)
    }

    pub async fn start(self) -> Result<Process<'a>> {
        let process = self.create().await?;
        process.start().await?;
        Ok(process)
    }

    /// Runs it to its end and removes its record.
    pub async fn output(self) -> Result<Output> {
        let process = self.start().await?;
        let output = process.output().await?;
        process.delete().await?;
        Ok(output)
    }
}
