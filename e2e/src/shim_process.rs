//! A shim that the test starts itself, as the different containerds start theirs, and speaks to by ttrpc. For what the
//! contract says about the shim alone, and for bundles that containerd would not write.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::api::{CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::{Message, MessageField};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use ttrpc::asynchronous::Client;

use crate::context::Ctx;
use crate::io::Capture;
use crate::{processes, spec};

/// How a shim is told what to do, by containerd's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 2.3 and later: `BootstrapParams` on stdin.
    Bootstrap,
    /// 2.0 to 2.2, and 1.7: an options `Any` on stdin.
    Options,
    /// 1.6: nothing on stdin.
    Bare,
}

/// What a shim answered to `start`.
#[derive(Clone, Debug)]
pub struct Answer {
    pub version: i32,
    pub address: String,
    pub text: Vec<u8>,
}

/// One shim process and its bundle.
pub struct Shim<'a> {
    ctx: &'a Ctx,
    pub id: String,
    pub bundle: PathBuf,
    pub answer: Answer,
    /// Reads what the shim logs, as containerd does: a shim may wait for somebody to.
    _log: Capture,
    client: Client,
}

/// A bundle with a root filesystem in it, and these bytes as its config.json.
pub fn new_bundle(ctx: &Ctx, id: &str, config: Option<&[u8]>) -> Result<PathBuf> {
    // runc's `delete` finds the bundle by the container's name.
    let bundle = ctx.directory.join("bundles").join(id);
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        let path = bundle.join("rootfs").join(directory);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    let bin = bundle.join("rootfs/bin");
    for (from, to) in [(&ctx.tools.busybox, "busybox"), (&ctx.tools.probe, "probe")] {
        std::fs::copy(from, bin.join(to)).with_context(|| format!("copy {}", from.display()))?;
    }
    for applet in ["sh", "true", "echo", "sleep"] {
        symlink("busybox", bin.join(applet)).context("link an applet")?;
    }
    // The shim's log, which containerd reads.
    crate::io::make_fifo(&bundle.join("log"))?;
    if let Some(config) = config {
        std::fs::write(bundle.join("config.json"), config).context("write config.json")?;
    }
    Ok(bundle)
}

/// The shim's program with the flags and the environment that containerd gives.
pub fn command(ctx: &Ctx, id: &str, bundle: &Path) -> Command {
    let daemon = &ctx.daemon;
    let mut command = daemon.command(ctx.runtime.binary());
    command
        .args(["-namespace", &ctx.namespace, "-address"])
        .arg(daemon.grpc_address())
        .args(["-publish-binary", "/no/such/containerd", "-id", id])
        .env("TTRPC_ADDRESS", daemon.ttrpc_address())
        .env("GRPC_ADDRESS", daemon.grpc_address())
        .env("NAMESPACE", &ctx.namespace)
        .env("GOMAXPROCS", "2")
        .current_dir(bundle)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The same, started by a shell script, which finds the program and its flags in `$0` and `$@`.
fn by_script(script: &str, command: &Command) -> Command {
    let inner = command.as_std();
    let mut outer = Command::new("sh");
    outer
        .args(["-c", script])
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(directory) = inner.get_current_dir() {
        outer.current_dir(directory);
    }
    outer
}

/// Runs `start` and reads the answer as every containerd does: to the end of stdout and stderr.
pub async fn run_start(ctx: &Ctx, id: &str, bundle: &Path, form: Form) -> Result<Answer> {
    let mut command = command(ctx, id, bundle);
    command.arg("start");
    start_command(ctx, id, form, command).await
}

async fn start_command(ctx: &Ctx, id: &str, form: Form, mut command: Command) -> Result<Answer> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = match form {
        Form::Bare => Vec::new(),
        Form::Options => {
            let options = protobuf::well_known_types::any::Any {
                type_url: "containerd.runc.v1.Options".to_owned(),
                ..Default::default()
            };
            options.write_to_bytes().context("encode options")?
        }
        Form::Bootstrap => {
            let mut params = BootstrapParams::new();
            params.instance_id = id.to_owned();
            params.namespace.clone_from(&ctx.namespace);
            params.containerd_version = "2.4.2".to_owned();
            params.containerd_grpc_address = ctx.daemon.grpc_address().display().to_string();
            params.containerd_ttrpc_address = ctx.daemon.ttrpc_address().display().to_string();
            params.containerd_binary = "/no/such/containerd".to_owned();
            params.write_to_bytes().context("encode the parameters")?
        }
    };
    if form != Form::Bare {
        command.env("MAX_SHIM_VERSION", "3").stdin(Stdio::piped());
    }
    let mut child = command.spawn().context("start the shim's program")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it may have closed it.
        stdin.write_all(&input).await.ok();
    }
    let ended = tokio::time::timeout(crate::node::patience(10), child.wait_with_output()).await;
    let output = ended
        .context("`start` does not close its output")?
        .context("read the answer to `start`")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        bail!("`start` ended with {}: {text}", output.status);
    }
    if !output.stderr.is_empty() {
        bail!("`start` wrote to stderr: {:?}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&output.stdout)
}

/// As containerd parses it: protobuf, else JSON, else an address.
fn parse(text: &[u8]) -> Result<Answer> {
    if let Ok(result) = BootstrapResult::parse_from_bytes(text)
        && !result.address.is_empty()
    {
        return Ok(Answer {
            version: result.version,
            address: result.address,
            text: text.to_vec(),
        });
    }
    let plain = String::from_utf8(text.to_vec()).context("an answer that is neither protobuf nor text")?;
    if let Ok(json) = serde_json::from_str::<Value>(&plain) {
        let version = json["version"]
            .as_i64()
            .and_then(|version| i32::try_from(version).ok())
            .unwrap_or(0);
        let address = json["address"].as_str().unwrap_or_default().to_owned();
        return Ok(Answer {
            version,
            address,
            text: text.to_vec(),
        });
    }
    Ok(Answer {
        version: 2,
        address: plain.trim().to_owned(),
        text: text.to_vec(),
    })
}

impl<'a> Shim<'a> {
    /// Starts a shim for a container that waits, as containerd of this version does.
    pub async fn start(ctx: &'a Ctx) -> Result<Self> {
        Self::start_with(ctx, |spec| {
            spec["process"]["args"] = serde_json::json!(["/bin/probe", "wait"])
        })
        .await
    }

    /// The same with a spec of the test's.
    pub async fn start_with(ctx: &'a Ctx, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let id = ctx.new_id();
        let mut config = spec::base(&ctx.namespace, &id);
        change(&mut config);
        Self::start_raw(ctx, &id, Some(config.to_string().as_bytes())).await
    }

    /// The same with any bytes as config.json, or without that file.
    pub async fn start_raw(ctx: &'a Ctx, id: &str, config: Option<&[u8]>) -> Result<Self> {
        let form = if ctx.is_containerd_2() {
            Form::Bootstrap
        } else {
            Form::Bare
        };
        let bundle = new_bundle(ctx, id, config)?;
        Self::start_in(ctx, id, bundle, form).await
    }

    pub async fn start_in(ctx: &'a Ctx, id: &str, bundle: PathBuf, form: Form) -> Result<Self> {
        let mut command = command(ctx, id, &bundle);
        command.arg("start");
        Self::started(ctx, id, bundle, form, command).await
    }

    /// The same, by a shell script that ends with `exec "$0" "$@"`.
    pub async fn start_by(ctx: &'a Ctx, id: &str, bundle: PathBuf, form: Form, script: &str) -> Result<Self> {
        let mut command = command(ctx, id, &bundle);
        command.arg("start");
        Self::started(ctx, id, bundle, form, by_script(script, &command)).await
    }

    async fn started(ctx: &'a Ctx, id: &str, bundle: PathBuf, form: Form, command: Command) -> Result<Self> {
        let log = Capture::of_fifo(&bundle.join("log"))?;
        let answer = start_command(ctx, id, form, command).await?;
        let client = Client::connect(&answer.address).await;
        let client = client.with_context(|| format!("connect to the shim at {}", answer.address))?;
        Ok(Self {
            ctx,
            id: id.to_owned(),
            bundle,
            answer,
            client,
            _log: log,
        })
    }

    /// Any call by the name of its service and method.
    pub async fn call(&self, service: &str, method: &str, message: &impl Message) -> ttrpc::Result<Vec<u8>> {
        let request = ttrpc::Request {
            service: service.to_owned(),
            method: method.to_owned(),
            timeout_nano: 15_000_000_000,
            payload: message
                .write_to_bytes()
                .map_err(|error| ttrpc::Error::Others(error.to_string()))?,
            ..Default::default()
        };
        let response = self.client.request(request).await?;
        match response.status.as_ref() {
            Some(status) if status.code() != ttrpc::Code::OK => Err(ttrpc::Error::RpcStatus(status.clone())),
            _ => Ok(response.payload),
        }
    }

    /// A call of the Task service under the name that this containerd uses.
    pub async fn task<Reply: Message>(&self, method: &str, message: &impl Message) -> ttrpc::Result<Reply> {
        let service = if self.ctx.is_containerd_2() {
            "containerd.task.v3.Task"
        } else {
            "containerd.task.v2.Task"
        };
        let payload = self.call(service, method, message).await?;
        Reply::parse_from_bytes(&payload).map_err(|error| ttrpc::Error::Others(error.to_string()))
    }

    pub fn create_request(&self) -> CreateTaskRequest {
        CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            ..Default::default()
        }
    }

    /// Creates the task; its pid.
    pub async fn create(&self) -> ttrpc::Result<u32> {
        let request = self.create_request();
        Ok(self
            .task::<containerd_shim_protos::api::CreateTaskResponse>("Create", &request)
            .await?
            .pid)
    }

    pub async fn start_task(&self) -> ttrpc::Result<u32> {
        let request = StartRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        Ok(self
            .task::<containerd_shim_protos::api::StartResponse>("Start", &request)
            .await?
            .pid)
    }

    pub async fn kill(&self) -> ttrpc::Result<()> {
        let request = KillRequest {
            id: self.id.clone(),
            signal: 9,
            ..Default::default()
        };
        self.task::<containerd_shim_protos::api::Empty>("Kill", &request)
            .await
            .map(drop)
    }

    pub async fn delete(&self) -> ttrpc::Result<u32> {
        let request = DeleteRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        Ok(self
            .task::<containerd_shim_protos::api::DeleteResponse>("Delete", &request)
            .await?
            .exit_status)
    }

    /// Kills the task, waits until it can be deleted, deletes it.
    pub async fn end_task(&self) -> Result<()> {
        self.kill().await.context("kill")?;
        self.ctx
            .eventually("the task can be deleted", async || Ok(self.delete().await.is_ok()))
            .await
    }

    pub async fn shutdown(&self) -> ttrpc::Result<()> {
        let request = ShutdownRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.task::<containerd_shim_protos::api::Empty>("Shutdown", &request)
            .await
            .map(drop)
    }

    /// The pids of the shim and of a task, by the call that containerd makes after its restart.
    pub async fn connect(&self, id: &str) -> ttrpc::Result<(u32, u32)> {
        let request = containerd_shim_protos::api::ConnectRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let reply = self
            .task::<containerd_shim_protos::api::ConnectResponse>("Connect", &request)
            .await?;
        Ok((reply.shim_pid, reply.task_pid))
    }

    /// Ends the shim in order and waits until its process and its socket are gone.
    pub async fn end(self) -> Result<()> {
        let (pid, _) = self.connect(&self.id).await.context("connect")?;
        // The reply may be cut off by the end itself.
        self.shutdown().await.ok();
        let socket = self.answer.address.trim_start_matches("unix://").to_owned();
        self.ctx
            .eventually("the shim is gone", async || Ok(!processes::is_alive(pid)))
            .await?;
        self.ctx
            .eventually("its socket is gone", async || Ok(!Path::new(&socket).exists()))
            .await
    }

    /// Ends the shim and waits for its process alone; a socket that stays is removed.
    pub async fn end_process(self) -> Result<()> {
        let (pid, _) = self.connect(&self.id).await.context("connect")?;
        self.shutdown().await.ok();
        self.ctx
            .eventually("the shim is gone", async || Ok(!processes::is_alive(pid)))
            .await?;
        std::fs::remove_file(self.answer.address.trim_start_matches("unix://")).ok();
        Ok(())
    }

    /// The whole way down: task, shim.
    pub async fn end_all(self) -> Result<()> {
        self.end_task().await?;
        self.end().await
    }

    /// Runs the program's `delete`, as containerd does after a crash; what it printed.
    pub async fn run_delete(&self) -> Result<containerd_shim_protos::api::DeleteResponse> {
        let mut command = command(self.ctx, &self.id, &self.bundle);
        command.arg("-bundle").arg(&self.bundle).arg("delete");
        let output = command.output().await.context("run the shim's `delete`")?;
        if !output.status.success() {
            bail!(
                "`delete` ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Message::parse_from_bytes(&output.stdout).context("decode what `delete` printed")
    }

    /// Sends the shim SIGKILL and waits for its end.
    pub async fn crash(&self) -> Result<()> {
        let (pid, _) = self.connect(&self.id).await.context("connect")?;
        processes::kill(pid);
        self.ctx
            .eventually("the shim is gone", async || Ok(!processes::is_alive(pid)))
            .await
    }
}

impl Drop for Shim<'_> {
    /// After a test that failed: what is left of this shim ends, by its own means.
    fn drop(&mut self) {
        let socket = self.answer.address.trim_start_matches("unix://");
        if !Path::new(socket).exists() {
            return;
        }
        let mark = format!("-id {} ", self.id);
        if let Some(supervisor) = rustix::process::getppid() {
            for process in processes::descendants(supervisor.as_raw_nonzero().get().unsigned_abs()) {
                if process.command.contains(&mark) && process.command.contains(&self.ctx.namespace) {
                    processes::kill(process.pid);
                }
            }
        }
        let mut delete = command(self.ctx, &self.id, &self.bundle).into_std();
        delete
            .arg("-bundle")
            .arg(&self.bundle)
            .arg("delete")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok();
        std::fs::remove_file(socket).ok();
    }
}

/// A refusal by ttrpc: its code and its text.
pub fn refused<T>(outcome: ttrpc::Result<T>) -> Result<(ttrpc::Code, String)> {
    match outcome {
        Ok(_) => bail!("it was accepted, and should have been refused"),
        Err(ttrpc::Error::RpcStatus(status)) => Ok((status.code(), status.message().to_owned())),
        Err(error) => Err(error).context("no answer"),
    }
}

/// An `Any` in a message.
pub fn any(type_url: &str, value: &[u8]) -> MessageField<protobuf::well_known_types::any::Any> {
    MessageField::some(protobuf::well_known_types::any::Any {
        type_url: type_url.to_owned(),
        value: value.to_vec(),
        ..Default::default()
    })
}
