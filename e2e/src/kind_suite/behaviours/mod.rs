//! What is tried on clusters, by the cluster that it needs.

mod admission;
mod chart;
mod database;
mod default_runtime;
mod kubelet;
mod lifecycle;
mod pods;
pub mod runtime;
mod serving;
mod workloads;

use std::pin::Pin;

use anyhow::{Context, Result};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, PostParams};
use serde_json::Value;

use super::cluster::Cluster;
use super::release;
use super::workload::Space;
use crate::prepare::root;

pub type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A sentence about pods on a cluster, and what finds out whether it is true.
pub struct Behaviour {
    pub kind: Kind,
    pub subject: &'static str,
    pub name: &'static str,
    pub run: for<'a> fn(&'a Space<'a>) -> Outcome<'a>,
    /// Whether it has to be true of runc too.
    pub on_runc: bool,
    /// Whether nothing else may be tried at the same time.
    pub alone: bool,
}

impl Behaviour {
    pub fn title(&self) -> String {
        format!("{}/{}", self.subject, self.name)
    }
}

/// Which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kind-config/preinstalled.yaml`.
    Preinstalled,
    /// The same with nucleus as containerd's default: the control plane runs on it.
    Default,
    /// `kind-config/bare.yaml`: three plain nodes, on which the chart installs.
    Bare,
}

impl Kind {
    /// All of them, with their files.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Bare, "bare.yaml"),
        (Self::Preinstalled, "preinstalled.yaml"),
        (Self::Default, "preinstalled.yaml"),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Preinstalled => "the cluster with the shim in its node",
            Self::Default => "the cluster whose default runtime is nucleus",
            Self::Bare => "the cluster on which the chart installs",
        }
    }

    /// What is changed of its file.
    pub fn change(self, config: &mut Value) {
        match self {
            // The hook of kind's base specification is not in the file, because handlers of users do not have it.
            Self::Preinstalled => super::cluster::push(&mut config["containerdConfigPatches"], HOOK.into()),
            Self::Bare => {}
            Self::Default => {
                config["name"] = "nucleus-default".into();
                for patch in [HOOK, DEFAULT] {
                    super::cluster::push(&mut config["containerdConfigPatches"], patch.into());
                }
            }
        }
    }

    /// What is done once the cluster is up.
    pub async fn prepare(self, cluster: &mut Cluster<'_>) -> Result<()> {
        match self {
            Self::Bare => {
                cluster.before = release::look(cluster).await?;
                release::install(cluster).await
            }
            Self::Preinstalled | Self::Default => {
                let text = std::fs::read_to_string(root().join("kind-config/runtimeclass.yaml"))
                    .context("read kind-config/runtimeclass.yaml")?;
                let class: RuntimeClass = serde_yaml_ng::from_str(&text).context("read the RuntimeClass")?;
                let classes: Api<RuntimeClass> = Api::all(cluster.client.clone());
                let created = classes.create(&PostParams::default(), &class).await;
                created.context("create the RuntimeClass").map(drop)
            }
        }
    }
}

const HOOK: &str = "\
version = 2
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nucleus]
  base_runtime_spec = \"/etc/containerd/cri-base.json\"
";

const DEFAULT: &str = "\
version = 2
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
  default_runtime_name = \"nucleus\"
";

/// Everything there is.
pub fn all() -> impl Iterator<Item = Behaviour> {
    let all = [
        serving::all(),
        chart::all(),
        admission::all(),
        lifecycle::all(),
        workloads::all(),
        database::all(),
        pods::all(),
        kubelet::all(),
        runtime::all(),
        default_runtime::all(),
    ];
    all.into_iter().flatten()
}

/// A behaviour of the cluster with the shim in its node, true of both runtimes.
const fn common(subject: &'static str, name: &'static str, run: for<'a> fn(&'a Space<'a>) -> Outcome<'a>) -> Behaviour {
    Behaviour {
        kind: Kind::Preinstalled,
        subject,
        name,
        run,
        on_runc: true,
        alone: false,
    }
}

/// The same, of nucleus alone.
const fn ours(subject: &'static str, name: &'static str, run: for<'a> fn(&'a Space<'a>) -> Outcome<'a>) -> Behaviour {
    let mut behaviour = common(subject, name, run);
    behaviour.on_runc = false;
    behaviour
}
