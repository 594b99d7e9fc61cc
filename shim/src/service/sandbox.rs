//! containerd's Sandbox API: pods whose sandbox the shim makes itself. Requests in, answers out; what they mean is the
//! business of [`crate::sandbox`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest, PlatformResponse,
    SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
    ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::{Sandbox as SandboxApi, create_sandbox};
use containerd_shim_protos::ttrpc;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use runtime_core::cgroup;
use ttrpc::asynchronous::{Server, TtrpcContext};

use super::errors::{Error, status};
use super::options::type_name;
use super::{told, whole};
use crate::sandbox::config::{self, PodConfig};
use crate::sandbox::{self, Sandbox};
use crate::shim::{Shim, Unavailable};
use crate::{metrics, timestamp};

/// Type of an OCI spec in JSON, as containerd's clients know it.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

#[derive(Clone)]
struct Service {
    shim: Arc<Shim>,
}

/// Adds the Sandbox API to `server`.
pub fn register(server: Server, shim: &Arc<Shim>) -> Server {
    server.register_service(create_sandbox(Arc::new(Service { shim: Arc::clone(shim) })))
}

impl Service {
    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        let found = self.shim.sandbox().filter(|sandbox| sandbox.id == id);
        found.ok_or_else(|| Error::NoSandbox { id: id.to_owned() })
    }

    async fn create(self, request: CreateSandboxRequest) -> Result<CreateSandboxResponse, Error> {
        let bundle = PathBuf::from(&request.bundle_path);
        let options = request.options.into_option().unwrap_or_default();
        for (field, value, fits, expected) in [
            (
                "bundle_path",
                &request.bundle_path,
                bundle.is_absolute(),
                "an absolute path",
            ),
            (
                "options",
                &options.type_url,
                type_name(&options) == config::TYPE,
                config::TYPE,
            ),
        ] {
            if !fits {
                return Err(Error::Field {
                    field,
                    value: value.clone(),
                    expected,
                });
            }
        }
        if !request.rootfs.is_empty() {
            return Err(Error::Unimplemented {
                what: "a root file system for a sandbox (there is no program in it)",
            });
        }
        let config = PodConfig::parse(&options.value)?;
        let id = request.sandbox_id;
        let reservation = self.shim.reserve_sandbox().map_err(|unavailable| match unavailable {
            Unavailable::Exists => Error::SandboxExists { id: id.clone() },
            Unavailable::Ending => Error::Ending,
        })?;
        let request = sandbox::Request {
            id,
            bundle,
            network: request.netns_path,
            config,
        };
        reservation.fulfil(Sandbox::create(&self.shim, request).await?);
        Ok(CreateSandboxResponse::new())
    }

    async fn start(self, id: String) -> Result<StartSandboxResponse, Error> {
        let sandbox = self.sandbox(&id)?;
        let status = sandbox.start(&self.shim).await?;
        let spec = Any {
            type_url: SPEC.into(),
            value: sandbox.spec().map_err(|source| Error::SandboxSpec { id, source })?,
            ..Any::new()
        };
        Ok(StartSandboxResponse {
            pid: status.pid,
            created_at: status
                .created_at
                .map(timestamp::message)
                .unwrap_or_else(timestamp::never),
            spec: MessageField::some(spec),
            ..StartSandboxResponse::new()
        })
    }

    async fn shutdown(self, id: String) -> Result<ShutdownSandboxResponse, Error> {
        // Of one that could not be created nothing is left, and its shim has to go all the same.
        if let Ok(sandbox) = self.sandbox(&id) {
            sandbox::remove_containers(&self.shim).await;
            sandbox.stop(&self.shim).await?;
            self.shim.end_when_left();
        } else if !self.shim.end_if_unused() {
            return Err(Error::NoSandbox { id });
        }
        Ok(ShutdownSandboxResponse::new())
    }

    fn status_of(&self, request: SandboxStatusRequest) -> Result<SandboxStatusResponse, Error> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let status = sandbox.status();
        let mut response = SandboxStatusResponse {
            pid: status.pid,
            // CRI's own names.
            state: if status.ready {
                "SANDBOX_READY"
            } else {
                "SANDBOX_NOTREADY"
            }
            .into(),
            created_at: status
                .created_at
                .map(timestamp::message)
                .unwrap_or_else(timestamp::never),
            exited_at: status
                .exit
                .map_or_else(timestamp::never, |exit| timestamp::message(exit.at)),
            ..SandboxStatusResponse::new()
        };
        if request.verbose {
            let id = request.sandbox_id.clone();
            let spec = sandbox.spec().map_err(|source| Error::SandboxSpec { id, source })?;
            response.info.insert("info".into(), info(&status, &spec));
        }
        response.sandbox_id = request.sandbox_id;
        Ok(response)
    }

    async fn metrics(self, id: String) -> Result<SandboxMetricsResponse, Error> {
        let sandbox = self.sandbox(&id)?;
        let stats = match sandbox.stats(&self.shim).await? {
            Some(stats) => stats,
            None => self.of_containers(&id).await?,
        };
        let data = metrics::encode(&stats).map_err(|source| Error::Stats { id: id.clone(), source })?;
        let mut response = SandboxMetricsResponse::new();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = timestamp::message(SystemTime::now());
        metric.id = id;
        metric.data = MessageField::some(data);
        Ok(response)
    }

    /// Without a cgroup of the pod's: what its containers use together.
    async fn of_containers(&self, id: &str) -> Result<cgroup::Stats, Error> {
        let mut sum = cgroup::no_stats().map_err(|source| sandbox::Error::Stats {
            id: id.to_owned(),
            source,
        })?;
        for container in self.shim.containers() {
            // One that is deleted meanwhile uses nothing any more.
            if let Ok(stats) = container.stats().await {
                sum.add(&stats);
            }
        }
        Ok(sum)
    }
}

/// What `crictl inspectp` shows, in the words of containerd's own sandboxes.
fn info(status: &sandbox::Status, spec: &[u8]) -> String {
    let spec: serde_json::Value = serde_json::from_slice(spec).unwrap_or_default();
    serde_json::json!({
        "pid": status.pid,
        "processStatus": if status.ready { "running" } else { "stopped" },
        "runtimeType": "io.containerd.nucleus.v2",
        "runtimeSpec": spec,
    })
    .to_string()
}

/// Go's names of architectures.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

#[async_trait]
impl SandboxApi for Service {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        whole(self.clone().create(request)).await
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        whole(self.clone().start(request.sandbox_id)).await
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        self.sandbox(&request.sandbox_id).map_err(status)?;
        let platform = containerd_shim_protos::types::platform::Platform {
            os: "linux".into(),
            architecture: ARCHITECTURE.into(),
            ..Default::default()
        };
        Ok(PlatformResponse {
            platform: MessageField::some(platform),
            ..PlatformResponse::new()
        })
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, request: StopSandboxRequest) -> ttrpc::Result<StopSandboxResponse> {
        let (sandbox, shim) = (
            self.sandbox(&request.sandbox_id).map_err(status)?,
            Arc::clone(&self.shim),
        );
        whole(async move { Ok(sandbox.stop(&shim).await?) }).await?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, request: WaitSandboxRequest) -> ttrpc::Result<WaitSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id).map_err(status)?;
        let (exit_status, exited_at) = told(sandbox.wait().await);
        Ok(WaitSandboxResponse {
            exit_status,
            exited_at,
            ..WaitSandboxResponse::new()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        self.status_of(request).map_err(status)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        self.sandbox(&request.sandbox_id).map_err(status)?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        whole(self.clone().shutdown(request.sandbox_id)).await
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        self.clone().metrics(request.sandbox_id).await.map_err(status)
    }
}
