//! The demo's pod: `web`, and `sidecar` in web's network, IPC and UTS namespaces, as Kubernetes would make them.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::spec;

pub const WEB: &str = "web";
pub const SIDECAR: &str = "sidecar";

/// What web's limits are set to.
pub const MEMORY: u64 = 64 << 20;
pub const PIDS: u64 = 100;
/// Half a processor: microseconds in each period of 100,000.
pub const CPU_QUOTA: u64 = 50_000;

/// What web runs: something that ends in its own way when it is told to.
const SCRIPT: &str = "trap 'exit 7' TERM; echo web is up; while :; do sleep 3600 & wait $!; done";

/// Two running containers, and how many milliseconds each took from Create to the reply to Start.
pub struct Pod<'a> {
    pub web: Container<'a>,
    pub sidecar: Container<'a>,
    pub web_ms: f64,
    pub sidecar_ms: f64,
}

impl<'a> Pod<'a> {
    /// Creates and starts both; the suffix goes behind their names.
    pub async fn start(ctx: &'a Ctx, suffix: &str) -> Result<Self> {
        let (web, web_ms) = start(member(ctx, WEB, suffix).sh(SCRIPT)).await?;
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", web.pid.get());
        let sidecar = member(ctx, SIDECAR, suffix).waiting().spec(|spec| {
            for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
                spec::with_namespace_path(spec, kind, &path(file));
            }
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("hostname");
            }
        });
        let (sidecar, sidecar_ms) = start(sidecar).await?;
        Ok(Self {
            web,
            sidecar,
            web_ms,
            sidecar_ms,
        })
    }

    /// Ends and deletes both; how web and sidecar ended.
    pub async fn end(&self) -> Result<(u32, u32)> {
        self.sidecar.kill(9).await?;
        let sidecar = self.sidecar.wait().await?;
        self.sidecar.delete().await?;
        self.web.kill(15).await?;
        let web = self.web.wait().await?;
        self.web.delete().await?;
        Ok((web, sidecar))
    }
}

async fn start(builder: Builder<'_>) -> Result<(Container<'_>, f64)> {
    let prepared = builder.prepare().await?;
    let begun = Instant::now();
    let container = prepared.create().await?;
    container.start().await?;
    Ok((container, begun.elapsed().as_secs_f64() * 1000.0))
}

/// A container of the pod: grouped with the other one behind a shim, with limits.
fn member<'a>(ctx: &'a Ctx, name: &str, suffix: &str) -> Builder<'a> {
    let group = format!("{}-pod{suffix}", ctx.namespace);
    let name = format!("{name}{suffix}");
    ctx.own(&name);
    ctx.own_group(&group);
    let mut builder = ctx.container();
    builder.id.clone_from(&name);
    builder.spec(|spec| {
        spec["annotations"] = json!({"io.containerd.runc.v2.group": group});
        spec["hostname"] = json!("demo");
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", ctx.namespace));
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({"limit": MEMORY});
        resources["pids"] = json!({"limit": PIDS});
        resources["cpu"] = json!({"quota": CPU_QUOTA, "period": 100_000});
    })
}
