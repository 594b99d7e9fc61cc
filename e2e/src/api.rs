//! containerd's gRPC services with a namespace on every request.

use std::collections::HashMap;

use anyhow::{Context, Result};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest, ListTasksRequest, container,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Response, Status};
use containerd_client::types::Mount;
use prost_types::Any;
use serde_json::Value;

/// The type URL under which containerd keeps OCI specs.
pub const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// … OCI processes, for exec.
pub const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// … and OCI resources, for update.
pub const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

pub const SNAPSHOTTER: &str = "overlayfs";

/// A value as containerd packs JSON.
pub fn json_any(type_url: &str, value: &Value) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: value.to_string().into_bytes(),
    }
}

/// The services of one containerd in one namespace.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    namespace: String,
}

impl Api {
    pub fn new(channel: Channel, namespace: &str) -> Self {
        Self {
            channel,
            namespace: namespace.to_owned(),
        }
    }

    /// A message as a request in this namespace.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(namespace) = self.namespace.parse() {
            request.metadata_mut().insert("containerd-namespace", namespace);
        }
        request
    }

    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    /// Writes a container's record: its spec, its runtime and the options for that.
    pub async fn create_container(&self, id: &str, runtime: &str, options: Option<Any>, spec: &Value) -> Result<()> {
        let container = Container {
            id: id.to_owned(),
            image: crate::image::NAME.to_owned(),
            runtime: Some(container::Runtime {
                name: runtime.to_owned(),
                options,
            }),
            spec: Some(json_any(SPEC_TYPE, spec)),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.to_owned(),
            ..Container::default()
        };
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        self.containers()
            .create(request)
            .await
            .with_context(|| format!("create the container {id}"))?;
        Ok(())
    }

    pub async fn delete_container(&self, id: &str) -> Result<Response<()>, Status> {
        self.containers()
            .delete(self.request(DeleteContainerRequest { id: id.to_owned() }))
            .await
    }

    /// A writable layer on an image's, and the mounts that make it a root filesystem.
    pub async fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::from([("containerd.io/gc.root".to_owned(), "e2e".to_owned())]),
        });
        let response = self
            .snapshots()
            .prepare(request)
            .await
            .with_context(|| format!("prepare the snapshot {key}"))?;
        Ok(response.into_inner().mounts)
    }

    pub async fn remove_snapshot(&self, key: &str) -> Result<Response<()>, Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        };
        self.snapshots().remove(self.request(request)).await
    }

    /// Names of everything that containerd knows in this namespace but committed layers.
    pub async fn inventory(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let containers = self
            .containers()
            .list(self.request(ListContainersRequest { filters: Vec::new() }))
            .await;
        for container in containers.context("list containers")?.into_inner().containers {
            found.push(format!("container {}", container.id));
        }
        let tasks = self
            .tasks()
            .list(self.request(ListTasksRequest { filter: String::new() }))
            .await;
        for task in tasks.context("list tasks")?.into_inner().tasks {
            found.push(format!("task {}", task.id));
        }
        let request = ListSnapshotsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            filters: Vec::new(),
        };
        let mut snapshots = self
            .snapshots()
            .list(self.request(request))
            .await
            .context("list snapshots")?
            .into_inner();
        while let Some(page) = snapshots.message().await.context("list snapshots")? {
            for info in page.info {
                if !info.name.starts_with("sha256:") {
                    found.push(format!("snapshot {}", info.name));
                }
            }
        }
        Ok(found)
    }
}
