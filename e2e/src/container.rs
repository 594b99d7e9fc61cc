//! A container made through containerd's gRPC services: describe it, create it, use it.

use std::collections::HashMap;
use std::ops::Deref;

use anyhow::{Context, Result};
use containerd_client::services::v1::{
    CreateTaskRequest, ListPidsRequest, MetricsRequest, PauseTaskRequest, ResumeTaskRequest, UpdateTaskRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::ProcessInfo;
use containerd_shim_protos::cgroups::metrics::Metrics;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
use prost_types::Any;
use protobuf::Message;
use serde_json::{Value, json};

use crate::api::{RESOURCES_TYPE, json_any};
use crate::context::{Ctx, Output};
use crate::exec::{ExecBuilder, Process, Streams};
use crate::{spec, words};

/// A container that is described but not made.
pub struct Builder<'a> {
    ctx: &'a Ctx,
    pub id: String,
    spec: Value,
    streams: Streams,
    options: Option<Any>,
    rootfs: Option<Vec<Mount>>,
}

impl<'a> Builder<'a> {
    pub fn new(ctx: &'a Ctx) -> Self {
        let id = ctx.new_id();
        let spec = spec::base(&ctx.namespace, &id);
        Self {
            ctx,
            id,
            spec,
            streams: Streams::default(),
            options: crate::node::options(),
            rootfs: None,
        }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// A shell script as its command.
    pub fn sh(self, script: &str) -> Self {
        self.args(&["sh", "-c", script])
    }

    /// Another name than the test's own; the spec follows.
    pub fn set_id(&mut self, id: &str) {
        id.clone_into(&mut self.id);
        self.spec["linux"]["cgroupsPath"] = json!(crate::node::cgroups_path(&self.ctx.namespace, id));
    }

    /// A container that stays until it is killed.
    pub fn waiting(self) -> Self {
        self.args(&["probe", "wait"])
    }

    pub fn spec(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    pub fn stdin(mut self) -> Self {
        self.streams.stdin = true;
        self
    }

    pub fn terminal(mut self) -> Self {
        self.streams.terminal = true;
        self.spec["process"]["terminal"] = json!(true);
        self
    }

    /// Streams by URI instead of FIFOs of the test: stdin, stdout, stderr; empty means none.
    pub fn streams(mut self, uris: [&str; 3]) -> Self {
        self.streams.uris = Some(uris.map(str::to_owned));
        self
    }

    /// Options of the runtime, in the container's record.
    pub fn options(mut self, options: Any) -> Self {
        self.options = Some(options);
        self
    }

    /// A directory of the host's as its root, instead of the image.
    pub fn root_at(mut self, root: &std::path::Path) -> Self {
        self.rootfs = Some(vec![Mount {
            r#type: "bind".to_owned(),
            source: root.display().to_string(),
            target: String::new(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
        }]);
        self
    }

    /// A directory of the host's as its root that it may write to and that stays as it is: its own layer lies over it.
    pub fn root_over(mut self, lower: &std::path::Path) -> Result<Self> {
        let [upper, work] = ["upper", "work"].map(|name| self.ctx.directory.join(format!("{}-{name}", self.id)));
        for directory in [&upper, &work] {
            std::fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let option = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
        self.rootfs = Some(vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![
                option("lowerdir", lower),
                option("upperdir", &upper),
                option("workdir", &work),
            ],
        }]);
        Ok(self)
    }

    /// Writes the container's record and its snapshot: everything but the task.
    pub async fn prepare(self) -> Result<Prepared<'a>> {
        let api = self.ctx.api()?;
        let snapshot = api.prepare_snapshot(&self.id, &self.ctx.image.chain_id).await?;
        api.create_container(&self.id, self.ctx.runtime.name(), self.options.clone(), &self.spec)
            .await?;
        let rootfs = self.rootfs.clone().unwrap_or(snapshot);
        Ok(Prepared { builder: self, rootfs })
    }

    /// Makes the container and its task, which waits for `start`.
    pub async fn create(self) -> Result<Container<'a>> {
        self.prepare().await?.create().await
    }

    pub async fn start(self) -> Result<Container<'a>> {
        let container = self.create().await?;
        container.start().await?;
        Ok(container)
    }

    /// Runs it to its end and gives back how it ended and what it wrote; the task is deleted.
    pub async fn output(self) -> Result<Output> {
        let container = self.start().await?;
        let output = container.output().await?;
        container.delete().await?;
        Ok(output)
    }
}

/// A container without a task.
pub struct Prepared<'a> {
    builder: Builder<'a>,
    pub rootfs: Vec<Mount>,
}

impl<'a> Prepared<'a> {
    pub fn id(&self) -> &str {
        &self.builder.id
    }

    /// Creates the task; again, where an earlier one is gone.
    pub async fn create(&self) -> Result<Container<'a>> {
        let Self { builder, rootfs } = self;
        let ctx = builder.ctx;
        let init = Process::new(ctx, &builder.id, "", &builder.streams)?;
        let [stdin, stdout, stderr] = init.uris.clone();
        let api = ctx.api()?;
        let request = CreateTaskRequest {
            container_id: builder.id.clone(),
            rootfs: rootfs.clone(),
            stdin,
            stdout,
            stderr,
            terminal: builder.streams.terminal,
            ..CreateTaskRequest::default()
        };
        let response = api
            .tasks()
            .create(api.request(request))
            .await
            .with_context(|| format!("create the task {}", builder.id))?;
        init.pid.set(response.into_inner().pid);
        Ok(Container {
            init,
            id: builder.id.clone(),
        })
    }
}

/// A container with a task. What its init process can do, it can do.
pub struct Container<'a> {
    pub id: String,
    init: Process<'a>,
}

impl<'a> Deref for Container<'a> {
    type Target = Process<'a>;

    fn deref(&self) -> &Process<'a> {
        &self.init
    }
}

impl<'a> Container<'a> {
    /// Another process in it, yet to be described.
    pub fn exec(&self, args: &[&str]) -> ExecBuilder<'a> {
        ExecBuilder::new(self.init.ctx, &self.id, args)
    }

    /// Runs a shell script in it, to its end.
    pub async fn sh(&self, script: &str) -> Result<Output> {
        self.exec(&["sh", "-c", script]).output().await
    }

    pub async fn pause(&self) -> Result<()> {
        let api = self.ctx.api()?;
        let request = PauseTaskRequest {
            container_id: self.id.clone(),
        };
        api.tasks().pause(api.request(request)).await.context("pause")?;
        Ok(())
    }

    pub async fn resume(&self) -> Result<()> {
        let api = self.ctx.api()?;
        let request = ResumeTaskRequest {
            container_id: self.id.clone(),
        };
        api.tasks().resume(api.request(request)).await.context("resume")?;
        Ok(())
    }

    /// Changes resources, as OCI's `linux.resources`.
    pub async fn update(&self, resources: &Value) -> Result<()> {
        self.update_any(json_any(RESOURCES_TYPE, resources)).await
    }

    pub async fn update_any(&self, resources: Any) -> Result<()> {
        let api = self.ctx.api()?;
        let request = UpdateTaskRequest {
            container_id: self.id.clone(),
            resources: Some(resources),
            annotations: HashMap::new(),
        };
        api.tasks().update(api.request(request)).await.context("update")?;
        Ok(())
    }

    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let api = self.ctx.api()?;
        let request = ListPidsRequest {
            container_id: self.id.clone(),
        };
        Ok(api
            .tasks()
            .list_pids(api.request(request))
            .await
            .context("list pids")?
            .into_inner()
            .processes)
    }

    /// Metrics as they come: their type and their bytes.
    pub async fn raw_metrics(&self) -> Result<Any> {
        let api = self.ctx.api()?;
        let request = MetricsRequest {
            filters: vec![format!("id=={}", self.id)],
        };
        let metrics = api
            .tasks()
            .metrics(api.request(request))
            .await
            .context("metrics")?
            .into_inner()
            .metrics;
        metrics
            .into_iter()
            .find_map(|metric| metric.data)
            .context("no metrics for this container")
    }

    /// Metrics, in the words of cgroup v1.
    pub async fn metrics(&self) -> Result<Metrics> {
        let any = self.raw_metrics().await?;
        if crate::node::has_cgroup_v2() {
            return Ok(words::metrics(&self.metrics_v2().await?));
        }
        Metrics::parse_from_bytes(&any.value).context("decode the metrics")
    }

    /// Metrics of a cgroup v2 host.
    pub async fn metrics_v2(&self) -> Result<MetricsV2> {
        let any = self.raw_metrics().await?;
        MetricsV2::parse_from_bytes(&any.value).context("decode the metrics")
    }

    /// Its directories in the cgroup v1 hierarchies and the unified one.
    pub fn cgroup(&self, controller: &str) -> std::path::PathBuf {
        crate::node::cgroup(controller, &self.ctx.namespace, &self.id)
    }

    /// A file of its cgroup, without the line's end. The files are named and their values written as on cgroup v1.
    pub fn cgroup_value(&self, controller: &str, file: &str) -> Result<String> {
        let read = |file: &str| {
            let path = self.cgroup(controller).join(file);
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(text.trim_end().to_owned())
        };
        if crate::node::has_cgroup_v2() {
            words::value(file, read)
        } else {
            read(file)
        }
    }

    /// Whether the CPU shares are these: on cgroup v2 they are a weight.
    pub fn has_shares(&self, shares: u64) -> Result<()> {
        let value = self.cgroup_value("cpu", "cpu.shares")?;
        let wanted = if crate::node::has_cgroup_v2() {
            words::weights(shares)
        } else {
            vec![shares.to_string()]
        };
        anyhow::ensure!(
            wanted.contains(&value),
            "{shares} shares: found {value}, wanted one of {wanted:?}"
        );
        Ok(())
    }
}

/// Containers on a root filesystem of the test's own.
impl<'a> Builder<'a> {
    /// Puts the container into a user namespace whose ids 0… are the host's 100000…, on a root filesystem of its own.
    pub async fn rootless_root(mut self, ctx: &Ctx) -> Result<Self> {
        spec::with_user_namespace(&mut self.spec);
        let root = ctx.mapped_root().await?;
        Ok(self.root_at(&root))
    }
}
