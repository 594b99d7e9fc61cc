//! A pod by CRI, with the fewest fields that make one: no network of its own, so that no CNI plugin is needed.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use containerd_client::tonic::client::Grpc;
use containerd_client::tonic::codegen::http::uri::PathAndQuery;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request};
use prost::Message;
use serde_json::json;
use tokio::process::Command;
use tonic_prost::ProstCodec;

use crate::image;
use crate::prepare::Tools;

/// The image of both the sandbox and the container.
pub const PAUSE: &str = "nucleus.test/chart-pause:1";

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct Namespaces {
    /// 2 is the node's.
    #[prost(int32, tag = "1")]
    network: i32,
}

const ON_NODE: Namespaces = Namespaces { network: 2 };

#[derive(Clone, PartialEq, Message)]
struct Security {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, Message)]
struct Linux {
    #[prost(message, optional, tag = "2")]
    security: Option<Security>,
}

/// Of a container, `security` stands at another place.
#[derive(Clone, PartialEq, Message)]
struct ContainerLinux {
    #[prost(message, optional, tag = "2")]
    security: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(map = "string, string", tag = "7")]
    annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<Sandbox>,
    #[prost(string, tag = "2")]
    handler: String,
}

/// Several requests and answers are one string.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerName {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerName>,
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<ContainerLinux>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<Container>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct ExecSync {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// A connection to the CRI plugin.
pub struct Cri {
    channel: Channel,
}

/// A pod, perhaps with one container that waits.
pub struct Pod {
    sandbox: String,
    config: Sandbox,
    container: String,
}

impl Cri {
    pub async fn connect(socket: &Path) -> Result<Self> {
        let channel = containerd_client::connect(socket).await;
        Ok(Self {
            channel: channel.with_context(|| format!("connect to {}", socket.display()))?,
        })
    }

    async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.context("wait for the connection")?;
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        match grpc
            .unary(Request::new(request), path, ProstCodec::<Q, A>::default())
            .await
        {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == Code::NotFound => bail!("{method}: not found: {}", status.message()),
            Err(status) => bail!("{method}: {:?}: {}", status.code(), status.message()),
        }
    }

    /// Runs a pod with a handler and these annotations.
    pub async fn run(&self, name: &str, handler: &str, annotations: &[(&str, &str)]) -> Result<Pod> {
        let mut pod = self.run_sandbox(name, handler, annotations).await?;
        match self.start(&mut pod, PAUSE, &[]).await {
            Ok(()) => Ok(pod),
            Err(error) => {
                self.remove(&pod).await.ok();
                Err(error)
            }
        }
    }

    /// Runs a pod without a container.
    pub async fn run_sandbox(&self, name: &str, handler: &str, annotations: &[(&str, &str)]) -> Result<Pod> {
        let config = Sandbox {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: format!("{name}-uid"),
                namespace: "default".to_owned(),
            }),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            linux: Some(Linux {
                security: Some(Security {
                    namespaces: Some(ON_NODE),
                }),
            }),
        };
        let request = RunPodSandbox {
            config: Some(config.clone()),
            handler: handler.to_owned(),
        };
        let Id { id } = self.call("RunPodSandbox", request).await?;
        Ok(Pod {
            sandbox: id,
            config,
            container: String::new(),
        })
    }

    /// Makes the pod's container, and starts it; without a command it runs the image's.
    pub async fn start(&self, pod: &mut Pod, image: &str, command: &[&str]) -> Result<()> {
        let request = CreateContainer {
            sandbox: pod.sandbox.clone(),
            config: Some(Container {
                metadata: Some(ContainerName {
                    name: "main".to_owned(),
                }),
                image: Some(Id { id: image.to_owned() }),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                linux: Some(ContainerLinux {
                    security: Some(ContainerSecurity {
                        namespaces: Some(ON_NODE),
                    }),
                }),
            }),
            sandbox_config: Some(pod.config.clone()),
        };
        let Id { id } = self.call("CreateContainer", request).await?;
        pod.container.clone_from(&id);
        self.call::<_, Nothing>("StartContainer", Id { id }).await?;
        Ok(())
    }

    /// Runs a command in the pod's container; what it wrote.
    pub async fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        let request = ExecSync {
            container: pod.container.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
        };
        let done: Executed = self.call("ExecSync", request).await?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.code != 0 {
            bail!(
                "{command:?} ended with {}: {text}{}",
                done.code,
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(text)
    }

    /// Ends and removes a pod.
    pub async fn remove(&self, pod: &Pod) -> Result<()> {
        let id = || Id {
            id: pod.sandbox.clone(),
        };
        self.call::<_, Nothing>("StopPodSandbox", id()).await?;
        self.call::<_, Nothing>("RemovePodSandbox", id()).await?;
        Ok(())
    }
}

impl Pod {
    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }
}

/// Brings the image into the namespace that the CRI plugin looks into.
pub async fn import(tools: &Tools, containerd: &Path, directory: &Path) -> Result<()> {
    let tar = directory.join("pause.tar");
    image(tools, &tar)?;
    let output = Command::new(containerd.with_file_name("ctr"))
        .arg("--address")
        .arg(directory.join("run/containerd.sock"))
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(&tar)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run ctr images import")?;
    if !output.status.success() {
        bail!("ctr images import: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// An image of busybox alone, which sleeps.
fn image(tools: &Tools, file: &Path) -> Result<()> {
    let busybox = std::fs::read(&tools.busybox).with_context(|| format!("read {}", tools.busybox.display()))?;
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        image::directory(&mut layer, directory, 0o755, 0)?;
    }
    image::add(&mut layer, "bin/busybox", 0o755, &busybox)?;
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd"] {
        image::add(&mut layer, file, 0o644, b"")?;
    }
    let layer = layer.into_inner().context("write the layer")?;
    let config = json!({"Entrypoint": ["/bin/busybox", "sleep", "100000"]});
    image::write_layout(file, &layer, &[(PAUSE.to_owned(), config)])?;
    Ok(())
}
