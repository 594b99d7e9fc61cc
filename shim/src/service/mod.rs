//! containerd's Task API: requests in, answers out. What they mean is the business of [`crate::container`].

pub mod errors;
pub mod options;
mod sandbox;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::{topics, ttrpc};
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};
use runtime_core::plan::RootfsMount;
use ttrpc::asynchronous::{Server, TtrpcContext};

use crate::container::lifecycle::{ExecState, State};
use crate::container::{Container, CreateRequest, Deleted, ExecRequest, Found, Outcome, Streams, Target, exit};
use crate::shim::{Shim, Unavailable};
use crate::{metrics, timestamp};
use errors::{Error, status};
use options::Options;

/// The service's names. containerd 2 renamed it and left its messages as they were; a shim may meet both.
const NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The Task API over one shim.
#[derive(Clone)]
struct Service {
    shim: Arc<Shim>,
}

/// Adds the Task API to `server`, under each of its names, and the Sandbox API.
pub fn register(server: Server, shim: &Arc<Shim>) -> Server {
    let server = sandbox::register(server, shim);
    NAMES.into_iter().fold(server, |server, name| {
        let methods = create_task(Arc::new(Service { shim: Arc::clone(shim) }));
        server.register_service(
            methods
                .into_values()
                .map(|service| (name.to_owned(), service))
                .collect(),
        )
    })
}

/// Runs what changes something on a task of its own: ttrpc drops a handler in the middle of an await when its deadline
/// passes or its client goes, and a half-done create would be nobody's.
async fn whole<T: Send + 'static>(body: impl Future<Output = Result<T, Error>> + Send + 'static) -> ttrpc::Result<T> {
    tokio::spawn(body).await.unwrap_or(Err(Error::Panicked)).map_err(status)
}

impl Service {
    fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.shim
            .container(id)
            .ok_or_else(|| Error::NoContainer { id: id.to_owned() })
    }

    async fn create_container(self, request: CreateTaskRequest) -> Result<CreateTaskResponse, Error> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented {
                what: "restoring from a checkpoint",
            });
        }
        let bundle = PathBuf::from(&request.bundle);
        for (field, value, fits, expected) in [
            ("id", &request.id, !request.id.is_empty(), "a container's id"),
            ("bundle", &request.bundle, bundle.is_absolute(), "an absolute path"),
        ] {
            if !fits {
                return Err(Error::Field {
                    field,
                    value: value.clone(),
                    expected,
                });
            }
        }
        let options = Options::parse(request.options.as_ref())?;
        let reservation = self
            .shim
            .reserve(&request.id)
            .map_err(|unavailable| match unavailable {
                Unavailable::Exists => Error::ContainerExists { id: request.id.clone() },
                Unavailable::Ending => Error::Ending,
            })?;
        let streams = Streams {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let rootfs = request.rootfs.iter().map(|mount| RootfsMount {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        });
        let create = CreateRequest {
            id: request.id.clone(),
            bundle,
            rootfs: rootfs.collect(),
            streams,
            options,
        };
        let publisher = self.shim.publisher.clone();
        let announce = move |container: &Container| {
            let io = TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::new()
            };
            let event = TaskCreate {
                container_id: request.id,
                bundle: request.bundle,
                rootfs: request.rootfs,
                io: MessageField::some(io),
                pid: container.init.pid(),
                ..TaskCreate::new()
            };
            publisher.publish(topics::TASK_CREATE_EVENT_TOPIC, event);
        };
        let container = Container::create(Arc::clone(&self.shim), create, announce).await?;
        let pid = container.init.pid();
        reservation.fulfil(container);
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::new()
        })
    }

    async fn delete_process(self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        let container = self.container(&request.id)?;
        if !request.exec_id.is_empty() {
            return Ok(deleted(container.delete_exec(&request.exec_id).await?));
        }
        let response = deleted(container.delete().await?);
        self.shim.remove(&request.id);
        let event = TaskDelete {
            container_id: request.id,
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at.clone(),
            ..TaskDelete::new()
        };
        self.shim.publisher.publish(topics::TASK_DELETE_EVENT_TOPIC, event);
        Ok(response)
    }

    fn state_of(&self, request: StateRequest) -> Result<StateResponse, Error> {
        let container = self.container(&request.id)?;
        let found = container.process(&request.exec_id)?;
        let process = found.of(&container);
        let (exit_status, exited_at) = match process.exit() {
            Some(exit) => (exit.status, timestamp::message(exit.at)),
            None => (0, timestamp::never()),
        };
        let (id, status) = match &found {
            Found::Init => (request.id, init_status(container.state())),
            Found::Exec(exec) => (exec.id.clone(), exec_status(container.state(), exec.state())),
        };
        Ok(StateResponse {
            id,
            bundle: container.bundle.display().to_string(),
            pid: process.pid(),
            status: status.into(),
            stdin: process.streams.stdin.clone(),
            stdout: process.streams.stdout.clone(),
            stderr: process.streams.stderr.clone(),
            terminal: process.streams.terminal,
            exit_status,
            exited_at,
            ..StateResponse::new()
        })
    }
}

fn init_status(state: State) -> Status {
    match state {
        State::Created => Status::CREATED,
        State::Running => Status::RUNNING,
        State::Pausing => Status::PAUSING,
        State::Paused => Status::PAUSED,
        State::Stopped => Status::STOPPED,
    }
}

/// A frozen container's processes are all frozen.
fn exec_status(container: State, exec: ExecState) -> Status {
    match (container, exec) {
        (State::Pausing, _) => Status::PAUSING,
        (State::Paused, _) => Status::PAUSED,
        (_, ExecState::Created | ExecState::Failed) => Status::CREATED,
        (_, ExecState::Running) => Status::RUNNING,
        (_, ExecState::Stopped) => Status::STOPPED,
    }
}

fn deleted(deleted: Deleted) -> DeleteResponse {
    let (exit_status, exited_at) = told(deleted.outcome);
    DeleteResponse {
        pid: deleted.pid,
        exit_status,
        exited_at,
        ..DeleteResponse::new()
    }
}

/// Status and time of an end.
fn told(outcome: Outcome) -> (u32, MessageField<protobuf::well_known_types::timestamp::Timestamp>) {
    match outcome {
        Outcome::Exited(exit) => (exit.status, timestamp::message(exit.at)),
        Outcome::NeverRan => (exit::UNKNOWN_STATUS, timestamp::never()),
        // Nothing went wrong: as the runc shim.
        Outcome::NotStarted => (0, timestamp::never()),
    }
}

fn process_info((pid, exec): (u32, Option<String>)) -> ProcessInfo {
    let info = exec.map(|exec_id| Any {
        type_url: "containerd.runc.v1.ProcessDetails".into(),
        value: ProcessDetails {
            exec_id,
            ..ProcessDetails::new()
        }
        .write_to_bytes()
        .expect("a message of strings can always be encoded"),
        ..Any::new()
    });
    ProcessInfo {
        pid,
        info: info.into(),
        ..ProcessInfo::new()
    }
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        self.state_of(request).map_err(status)
    }

    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        whole(self.clone().create_container(request)).await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let container = self.container(&request.id).map_err(status)?;
        whole(async move {
            let pid = match request.exec_id.as_str() {
                "" => container.start().await?,
                exec => container.start_exec(exec).await?,
            };
            Ok(StartResponse {
                pid,
                ..StartResponse::new()
            })
        })
        .await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        whole(self.clone().delete_process(request)).await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.container(&request.id).map_err(status)?;
        let pids = container.pids().await.map_err(|error| status(error.into()))?;
        Ok(PidsResponse {
            processes: pids.into_iter().map(process_info).collect(),
            ..PidsResponse::new()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        whole(async move { Ok(container.pause().await?) }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        whole(async move { Ok(container.resume().await?) }).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        self.container(&request.id).map_err(status)?;
        Err(status(Error::Unimplemented { what: "checkpointing" }))
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        whole(async move {
            let target = match container.process(&request.exec_id)? {
                Found::Exec(exec) => Target::Exec(exec),
                Found::Init if request.all => Target::All,
                Found::Init => Target::Init,
            };
            Ok(container.kill(target, request.signal).await?)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default().value;
        let exec = ExecRequest {
            id: request.exec_id,
            streams,
            spec,
        };
        if exec.id.is_empty() {
            return Err(status(Error::Field {
                field: "exec_id",
                value: exec.id,
                expected: "a process's id",
            }));
        }
        container.add_exec(exec).map_err(|error| status(error.into()))?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let (rows, columns) = (size(request.height), size(request.width));
        container
            .resize(&request.exec_id, rows, columns)
            .map_err(|error| status(error.into()))?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        let found = container
            .process(&request.exec_id)
            .map_err(|error| status(error.into()))?;
        found.of(&container).close_stdin();
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id).map_err(status)?;
        let resources = request.resources.into_option().unwrap_or_default().value;
        whole(async move { Ok(container.update(&resources).await?) }).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let container = self.container(&request.id).map_err(status)?;
        let found = container
            .process(&request.exec_id)
            .map_err(|error| status(error.into()))?;
        let (exit_status, exited_at) = told(found.of(&container).wait().await);
        Ok(WaitResponse {
            exit_status,
            exited_at,
            ..WaitResponse::new()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.container(&request.id).map_err(status)?;
        let stats = container.stats().await.map_err(|error| status(error.into()))?;
        let stats = metrics::encode(&stats).map_err(|source| status(Error::Stats { id: request.id, source }))?;
        Ok(StatsResponse {
            stats: MessageField::some(stats),
            ..StatsResponse::new()
        })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self
                .shim
                .container(&request.id)
                .map_or(0, |container| container.init.pid()),
            ..ConnectResponse::new()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.shim.end_if_unused();
        Ok(Empty::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_d_process_of_a_paused_container_is_paused() {
        assert_eq!(exec_status(State::Paused, ExecState::Running), Status::PAUSED);
        assert_eq!(exec_status(State::Pausing, ExecState::Running), Status::PAUSING);
        assert_eq!(exec_status(State::Running, ExecState::Failed), Status::CREATED);
        assert_eq!(exec_status(State::Stopped, ExecState::Stopped), Status::STOPPED);
    }

    #[test]
    fn a_pid_of_an_exec_carries_its_id() {
        let info = process_info((7, Some("e1".into())));
        assert_eq!(info.pid, 7);
        assert_eq!(info.info.type_url, "containerd.runc.v1.ProcessDetails");
        assert_eq!(
            ProcessDetails::parse_from_bytes(&info.info.value).unwrap().exec_id,
            "e1"
        );
        assert!(process_info((8, None)).info.is_none());
    }
}
