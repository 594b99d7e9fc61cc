//! The suite `kind`: Kubernetes 1.37.2 with containerd 2.4.2 in a kind cluster of this suite's own, on which pods run
//! as those of users do. Nothing is pulled and nothing installed: the node image is made here, and dockerd lives in
//! namespaces that end with it.

mod behaviours;
mod cluster;
mod engine;
mod inside;
mod lesser_runtime;
mod load;
mod manifests;
mod measure;
mod node_image;
mod outside;
mod release;
mod store;
mod workload;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::harness::Tally;
use crate::prepare::Tools;

pub use inside::{InsideArgs, inside};
pub use lesser_runtime::{LesserRuntimeArgs, lesser_runtime};

/// The suite's name.
pub const NAME: &str = "kind";

/// What the part of the suite that runs in namespaces of its own is told.
#[derive(Debug, Serialize, Deserialize)]
struct Setting {
    /// Where everything of this run is; gone after it.
    directory: PathBuf,
    /// dockerd's data, which holds the node image from run to run.
    data: PathBuf,
    /// A root directory into which the packages of dockerd are unpacked.
    packages: PathBuf,
    /// A directory with `iptables`.
    iptables: PathBuf,
    busybox: PathBuf,
    /// Directories with runc; kind; helm; kubectl.
    runc: PathBuf,
    kind: PathBuf,
    helm: PathBuf,
    kubernetes: PathBuf,
    /// The shim under test, and what installs it.
    shim: PathBuf,
    installer: PathBuf,
    image: node_image::NodeImage,
    /// Below which cgroup, of every hierarchy, the nodes are.
    cgroup: String,
    /// The network namespace of the machine: this part is not to be in it.
    network: String,
    /// What was asked for by name.
    filter: Vec<String>,
    /// How often exec is to be measured, instead of trying behaviours.
    rounds: Option<u32>,
    /// Where the count is written at the end.
    tally: PathBuf,
}

/// Prints the tests' names and counts them.
pub fn list(filter: &[String]) -> usize {
    let names = behaviours::all().map(|behaviour| behaviour.title());
    let mut count = 0;
    for name in names.filter(|name| wanted(name, filter)) {
        println!("{NAME}: {name}");
        count += 1;
    }
    count
}

fn wanted(title: &str, filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|words| title.contains(words.as_str()))
}

/// Runs the suite; counts it as skipped, with the reason, where a cluster cannot be had.
/// `node_image` is kind's official image, or one like it, for the nodes; without one it is made here.
pub async fn run(tools: &Tools, filter: &[String], node_image: Option<&str>) -> Result<Tally> {
    outside::run(tools, filter, node_image, None).await
}

/// Measures exec and probes in a cluster, and prints the figures.
pub async fn bench(tools: &Tools, rounds: u32) -> Result<()> {
    let tally = outside::run(tools, &[], None, Some(rounds)).await?;
    ensure!(tally.failed == 0 && tally.skipped == 0, "nothing was measured");
    Ok(())
}

/// Where what is built for the suite is kept.
fn home() -> PathBuf {
    crate::prepare::target().join("kind")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}
