//! A cluster: kind makes it, as kind-config/ says and with what it takes to do without the internet; its network is
//! given here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

use super::engine::{Engine, run, told};
use super::{Setting, text, write};
use crate::prepare::root;

/// A cluster that is up.
pub struct Cluster<'a> {
    pub engine: &'a Engine,
    pub setting: &'a Setting,
    pub client: Client,
    pub kubeconfig: PathBuf,
    pub name: String,
    /// How many nodes there are.
    size: usize,
    /// Its nodes before anything was installed on them, where that is to be seen again.
    pub before: Vec<super::release::NodeState>,
}

/// What every cluster here needs: kubelet leaves nodes with cgroup v1 alone by now, and nothing may need a capability
/// that this machine's root may lack.
const KUBELET: &str = "\
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
failCgroupV1: false
";
const CONTAINERD: &str = "\
version = 2
[plugins.\"io.containerd.grpc.v1.cri\"]
  restrict_oom_score_adj = true
";

impl<'a> Cluster<'a> {
    /// Creates it of a file of kind-config/, changed by the caller, and waits until its nodes are ready.
    pub async fn create(
        engine: &'a Engine,
        setting: &'a Setting,
        file: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let path = root().join("kind-config").join(file);
        let content = std::fs::read_to_string(&path).with_context(|| format!("read {}", text(&path)))?;
        let mut config: Value = serde_yaml_ng::from_str(&content).with_context(|| format!("read {}", text(&path)))?;
        offline(&mut config, setting);
        change(&mut config);
        let name = config["name"].as_str().context("the cluster has no name")?.to_owned();
        let size = config["nodes"].as_array().context("the cluster has no nodes")?.len();
        let written = setting.directory.join(format!("{name}.yaml"));
        write(
            &written,
            serde_json::to_vec_pretty(&config).context("write kind's configuration")?,
        )?;
        let kubeconfig = setting.directory.join(format!("{name}.kubeconfig"));
        let mut create = engine.command("kind");
        create
            .args(["create", "cluster", "--retain", "--config", &text(&written)])
            .args(["--image", &setting.image.name, "--kubeconfig", &text(&kubeconfig)]);
        let made = told(&format!("make the cluster {name}"), &mut create).await;
        let cluster = match made {
            Ok(_) => Self {
                engine,
                setting,
                client: client(&kubeconfig).await?,
                kubeconfig,
                name,
                size,
                before: Vec::new(),
            },
            Err(error) => {
                logs(engine, setting, &name).await;
                return Err(error);
            }
        };
        let given = cluster.give_images().await;
        let given = match given {
            Ok(()) => cluster.give_network().await,
            Err(error) => Err(error),
        };
        if given.is_err() {
            logs(engine, setting, &cluster.name).await;
        }
        given.map(|()| cluster)
    }

    /// The tests' images into each node, where they are not in the node's image.
    async fn give_images(&self) -> Result<()> {
        for node in self.nodes() {
            for file in &self.setting.image.missing {
                let archive = std::fs::File::open(file).with_context(|| format!("open {}", text(file)))?;
                let mut import = self.engine.command("docker");
                import.args(["exec", "-i", &node, "ctr", "--namespace", "k8s.io"]);
                import
                    .args(["images", "import", "--local", "--no-unpack", "-"])
                    .stdin(archive);
                let imported = import.output().await.context("run docker exec")?;
                if !imported.status.success() {
                    let said = String::from_utf8_lossy(&imported.stderr);
                    bail!("import {} on {node}: {}", text(file), said.trim());
                }
            }
        }
        Ok(())
    }

    /// Removes it; with its nodes' logs kept, if something failed.
    pub async fn delete(self, failed: bool) -> Result<()> {
        if failed {
            logs(self.engine, self.setting, &self.name).await;
        }
        let mut delete = self.engine.command("kind");
        delete.args(["delete", "cluster", "--name", &self.name]);
        run(&mut delete).await.map(drop)
    }

    /// A network per node, routes between them; then the nodes become ready.
    async fn give_network(&self) -> Result<()> {
        let nodes = self.eventually("a pod network for every node", Duration::from_secs(120), async || {
            let nodes = Api::<Node>::all(self.client.clone())
                .list(&ListParams::default())
                .await?
                .items;
            let ranges: Option<Vec<(String, String, String)>> = nodes.iter().map(range).collect();
            Ok(ranges.filter(|ranges| ranges.len() == self.size))
        });
        let nodes = nodes.await?;
        for (name, _, subnet) in &nodes {
            let conflist = json!({
                "cniVersion": "0.3.1",
                "name": "e2e",
                "plugins": [
                    {
                        "type": "ptp",
                        "mtu": 1500,
                        "ipMasq": false,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": "/run/cni-ipam-state",
                            "routes": [{"dst": "0.0.0.0/0"}],
                            "ranges": [[{"subnet": subnet}]],
                        },
                    },
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                ],
            });
            self.send(
                name,
                &["cp", "/dev/stdin", "/etc/cni/net.d/10-e2e.conflist"],
                conflist.to_string().as_bytes(),
            )
            .await?;
            for (_, address, other) in nodes.iter().filter(|(other, ..)| other != name) {
                self.on_node(name, &["ip", "route", "replace", other, "via", address])
                    .await?;
            }
        }
        self.eventually("the nodes to be ready", Duration::from_secs(180), async || {
            let nodes = Api::<Node>::all(self.client.clone())
                .list(&ListParams::default())
                .await?
                .items;
            Ok(nodes.iter().all(is_ready).then_some(()))
        })
        .await?;
        // Without it no pod is admitted to the namespace.
        self.eventually("the default service account", Duration::from_secs(60), async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
            Ok(accounts.get_opt("default").await?.map(drop))
        })
        .await
    }

    /// Asks until there is an answer. What the API server says in the meantime is not taken for one.
    pub async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        look: impl AsyncFn() -> Result<Option<T>>,
    ) -> Result<T> {
        eventually(what, limit, look).await
    }

    /// Runs a program on a node.
    pub async fn on_node(&self, node: &str, args: &[&str]) -> Result<String> {
        run(self.engine.command("docker").args(["exec", node]).args(args)).await
    }

    /// The same with something to read.
    pub async fn send(&self, node: &str, args: &[&str], input: &[u8]) -> Result<()> {
        let mut command = self.engine.command("docker");
        command.args(["exec", "-i", node]).args(args);
        command
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().context("run docker exec")?;
        let mut stdin = child.stdin.take().context("docker has no input")?;
        stdin.write_all(input).await.context("write to a node")?;
        drop(stdin);
        let output = child.wait_with_output().await.context("wait for docker exec")?;
        if !output.status.success() {
            bail!("{args:?} on {node}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// `kubectl`, as this cluster's administrator.
    pub fn kubectl(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.engine.command("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// `helm`, as this cluster's administrator.
    pub fn helm(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.engine.command("helm");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// The nodes' names, the control plane's first.
    pub fn nodes(&self) -> Vec<String> {
        let roles = ["control-plane", "worker", "worker2"].iter().take(self.size);
        roles.map(|role| format!("{}-{role}", self.name)).collect()
    }
}

/// Asks until there is an answer; see [`Cluster::eventually`].
pub async fn eventually<T>(what: &str, limit: Duration, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        let seen = look().await;
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if begun.elapsed() > limit => bail!("waited {} s for {what}", limit.as_secs()),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A node's name, its address and its pods' addresses.
fn range(node: &Node) -> Option<(String, String, String)> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let address = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    let subnet = node.spec.as_ref()?.pod_cidr.clone()?;
    Some((node.metadata.name.clone()?, address.address.clone(), subnet))
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("read kind's kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("use kind's kubeconfig")?;
    config.proxy_url = None;
    Client::try_from(config).context("make a client of Kubernetes")
}

/// No image to pull, so no DNS and kindnet's network: kube-proxy is here, with nft alone.
fn offline(config: &mut Value, setting: &Setting) {
    config["networking"] = json!({"disableDefaultCNI": true, "kubeProxyMode": "nftables", "ipFamily": "ipv4"});
    config["kubeadmConfigPatches"] = json!([KUBELET]);
    push(&mut config["containerdConfigPatches"], json!(CONTAINERD));
    for node in config["nodes"].as_array_mut().into_iter().flatten() {
        for mount in node["extraMounts"].as_array_mut().into_iter().flatten() {
            mount["hostPath"] = json!(text(&setting.shim));
        }
    }
}

pub fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        other => *other = json!([value]),
    }
}

/// The nodes' logs into the run's directory, for whoever has to find out why; what cannot be had is not.
async fn logs(engine: &Engine, setting: &Setting, name: &str) {
    let mut export = engine.command("kind");
    let directory = setting.directory.join(format!("logs-{name}"));
    export.args(["export", "logs", "--name", name, &text(&directory)]);
    if let Err(error) = run(&mut export).await {
        eprintln!("keep the nodes' logs: {error:#}");
    }
}
