//! Huge pages: a container's limit of them, and the volume of kubelet's from which they are taken. containerd passes
//! limits on where it sees a controller, so it is given a view of the cgroups that has one; nothing of it is seen by
//! the machine.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use prost::Message;
use rustix::fs::FlockOperation;
use serde_json::json;
use tokio::process::Command;

use crate::context::Runtime;
use crate::{node, processes, same};

use super::behaviours::CannotBeTried;
use super::daemon::CriDaemon;
use super::leaks;
use super::pods::{Cri, FOREVER, PodContainer};

/// How many pages of 2 MiB may be taken from the kernel while this is tried.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages";
const PAGES: u32 = 16;

/// Mounts, for the command behind it alone: a hugetlbfs, and where the host is one of cgroup v1 and has no hierarchy
/// for huge pages, a view of all hierarchies and of one more.
const OWN_MOUNTS: &str = r#"
set -e
mkdir -p "$1/huge" "$1/cgroups"
mount -t hugetlbfs -o pagesize=2M none "$1/huge"
if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ ! -e /sys/fs/cgroup/hugetlb ]; then
    mount -t tmpfs none "$1/cgroups"
    for hierarchy in /sys/fs/cgroup/*; do
        mkdir "$1/cgroups/${hierarchy##*/}"
        mount --bind "$hierarchy" "$1/cgroups/${hierarchy##*/}"
    done
    mkdir "$1/cgroups/hugetlb"
    mount -t cgroup -o hugetlb none "$1/cgroups/hugetlb"
    mount --move "$1/cgroups" /sys/fs/cgroup
fi
shift
exec "$@"
"#;

fn launcher(directory: &Path) -> Vec<String> {
    let words = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        OWN_MOUNTS,
        "sh",
    ];
    let directory = directory.display().to_string();
    words.into_iter().map(str::to_owned).chain([directory]).collect()
}

/// Pages that may be taken, until this value goes. One at a time: the machine has one pool.
struct Pool {
    before: String,
    file: File,
}

impl Pool {
    async fn open() -> Result<Self> {
        let cannot = |error: std::io::Error| Error::new(CannotBeTried(format!("{POOL}: {error}")));
        let file = File::open(POOL).map_err(cannot)?;
        while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let before = fs::read_to_string(POOL).with_context(|| format!("read {POOL}"))?;
        fs::write(POOL, PAGES.to_string()).map_err(cannot)?;
        Ok(Self { before, file })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = fs::write(POOL, &self.before) {
            eprintln!("write {POOL}: {error}");
        }
        rustix::fs::flock(&self.file, FlockOperation::Unlock).ok();
    }
}

/// Finds out whether this machine can have huge pages and a controller for them, by taking one.
async fn look(directory: &Path) -> Result<()> {
    let script = r#"ls /sys/fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes >&2 || grep -qw hugetlb /sys/fs/cgroup/cgroup.controllers
truncate -s 2M "$1/huge/page" && fallocate -l 2M "$1/huge/page""#;
    let launcher = launcher(directory);
    let mut command = Command::new(&launcher[0]);
    command
        .args(&launcher[1..])
        .args(["sh", "-ec", script, "sh"])
        .arg(directory);
    let output = command.output().await.context("run unshare")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        bail!(CannotBeTried(format!(
            "no huge page, or no controller for them, can be had here: {text}"
        )));
    }
    Ok(())
}

/// What kubelet sends and crictl has no option for.
#[derive(Clone, PartialEq, Message)]
struct UpdateContainerResourcesRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, optional, tag = "2")]
    linux: Option<LinuxContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerResources {
    #[prost(message, repeated, tag = "8")]
    hugepage_limits: Vec<HugepageLimit>,
}

#[derive(Clone, PartialEq, Message)]
struct HugepageLimit {
    #[prost(string, tag = "1")]
    page_size: String,
    #[prost(uint64, tag = "2")]
    limit: u64,
}

async fn update(daemon: &CriDaemon, container: &PodContainer<'_, '_>, mebibytes: u64) -> Result<()> {
    let request = UpdateContainerResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(LinuxContainerResources {
            hugepage_limits: vec![HugepageLimit {
                page_size: "2MB".to_owned(),
                limit: mebibytes << 20,
            }],
        }),
    };
    let mut client = containerd_client::tonic::client::Grpc::new(daemon.channel()?);
    client.ready().await.context("reach containerd")?;
    let codec = tonic_prost::ProstCodec::<_, ()>::default();
    let path = "/runtime.v1.RuntimeService/UpdateContainerResources"
        .parse()
        .context("a path")?;
    let request = containerd_client::tonic::Request::new(request);
    client
        .unary(request, path, codec)
        .await
        .context("update the container")?;
    Ok(())
}

/// The cgroup of a container that has its huge pages, as containerd sees it.
async fn cgroup(daemon: &CriDaemon, container: &PodContainer<'_, '_>) -> Result<PathBuf> {
    let pid = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    let text = processes::text(u32::try_from(pid)?, "cgroup");
    let controller = if node::has_cgroup_v2() { ":" } else { "hugetlb:" };
    let line = text
        .lines()
        .find_map(|line| line.split_once(':')?.1.strip_prefix(controller));
    let path = line.with_context(|| format!("no cgroup of hugetlb in {text}"))?;
    let root = PathBuf::from(format!(
        "/proc/{}/root/sys/fs/cgroup",
        daemon.pid().context("containerd does not run")?
    ));
    let root = if node::has_cgroup_v2() {
        root
    } else {
        root.join("hugetlb")
    };
    Ok(root.join(path.trim_start_matches('/')))
}

fn limit_of(cgroup: &Path) -> Result<String> {
    let name = if node::has_cgroup_v2() {
        "hugetlb.2MB.max"
    } else {
        "hugetlb.2MB.limit_in_bytes"
    };
    let file = cgroup.join(name);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

pub async fn limits(cri: &Cri<'_>) -> Result<()> {
    let _pool = Pool::open().await?;
    if node::has_cgroup_v2() || Path::new("/sys/fs/cgroup/hugetlb").exists() {
        return tried(cri).await;
    }
    nobody_else().await?;
    let outcome = tried(cri).await;
    let gone = forget(cri).await;
    outcome.and(gone)
}

/// containerd's shim for runc loses its way in every cgroup as long as the kernel has a hierarchy that it does not see
/// mounted (containerd/cgroups, `existingPath`): no statistics, no word of what was killed for want of memory.
async fn nobody_else() -> Result<()> {
    let begun = Instant::now();
    loop {
        let processes = fs::read_dir("/proc").context("read /proc")?.flatten();
        let mut names = processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
        if !names.any(|name| name.starts_with("containerd-shim")) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(20) {
            bail!(CannotBeTried(
                "other containers run on this machine, and it has no hierarchy for huge pages that their shims see"
                    .to_owned()
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets the kernel take the hierarchy back, which it does a while after the last mount of an empty one went.
async fn forget(cri: &Cri<'_>) -> Result<()> {
    const SCRIPT: &str =
        r#"mount -t cgroup -o hugetlb none "$1"; find "$1" -mindepth 1 -depth -type d -exec rmdir {} +"#;
    let mut round: u32 = 0;
    cri.eventually("the hierarchy for huge pages is gone", async || {
        let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        round += 1;
        // What is mounted again and again never goes.
        if own.contains(":hugetlb:") && round.is_multiple_of(10) {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
            let output = command.arg(cri.directory.join("cgroups")).output().await;
            output.context("run unshare")?;
        }
        Ok(!own.contains(":hugetlb:"))
    })
    .await
}

async fn tried(cri: &Cri<'_>) -> Result<()> {
    look(&cri.directory).await?;
    let (tools, kit) = cri.parts;
    let daemon = CriDaemon::start_through(tools, kit, cri.daemon.version, "debug", launcher).await?;
    let own = Cri::new(cri.parts, &daemon, cri.runtime, 0)?;
    let name = daemon.directory().file_name().context("a directory without a name")?;
    let parent = format!("{}-hugepages", name.display());
    let outcome = held(&own, &parent).await;
    if outcome.is_err() {
        own.remove_all().await?;
    }
    let left = leaks::left_behind(&daemon, cri.runtime).await;
    // Whoever named a parent of pods removes it, as kubelet does.
    remove_parents(&parent)?;
    let cgroup = outcome?;
    same!(left, Vec::<String>::new());
    ensure!(!cgroup.exists(), "its cgroup is left");
    let parents = cgroup.parent().context("a cgroup without a parent")?;
    ensure!(
        parents.ends_with(&parent),
        "the pod was not where it was to be, but in {}",
        parents.display()
    );
    // On a host with a hierarchy that this process sees it is gone already.
    match fs::remove_dir(parents) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", parents.display()))
        }
        _ => Ok(()),
    }
}

/// Of all hierarchies that this process sees.
fn remove_parents(parent: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).context("read /sys/fs/cgroup")?.flatten();
    let hierarchies = hierarchies.map(|entry| entry.path()).chain([root.to_owned()]);
    for hierarchy in hierarchies {
        let directory = hierarchy.join(parent);
        if directory.is_dir() {
            fs::remove_dir(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
    }
    Ok(())
}

/// Where its cgroup was.
async fn held(cri: &Cri<'_>, parent: &str) -> Result<PathBuf> {
    let volume = cri.daemon.directory().join("huge");
    let pod = cri
        .pod(|config| config["linux"]["cgroup_parent"] = json!(format!("/{parent}")))
        .await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["linux"]["resources"] = json!({"hugepage_limits": [{"page_size": "2MB", "limit": 4 << 20}]});
            config["mounts"] = json!([{"host_path": volume, "container_path": "/hugepages"}]);
        })
        .await?;
    let cgroup = cgroup(cri.daemon, &container).await?;
    same!(limit_of(&cgroup)?, (4 << 20).to_string());
    let kind = container.sh("grep ' /hugepages ' /proc/mounts | cut -d' ' -f3").await?;
    same!(kind.ok()?, "hugetlbfs");
    let allocate = async |mebibytes: u32| {
        let script = format!("probe allocate /hugepages/pages {mebibytes}; rm /hugepages/pages");
        anyhow::Ok(container.sh(&script).await?.ok()?.to_owned())
    };
    same!(allocate(4).await?, "allocated");
    const REFUSED: &str = "refused: No space left on device (os error 28)";
    same!(allocate(6).await?, REFUSED);
    update(cri.daemon, &container, 8).await?;
    // runc's update takes no limits of huge pages, and says nothing.
    let limit = if cri.runtime == Runtime::Runc { 4 } else { 8 };
    same!(limit_of(&cgroup)?, (limit << 20).to_string());
    same!(allocate(limit).await?, "allocated");
    same!(allocate(limit + 2).await?, REFUSED);
    // Another one of the pod has its own limit: containerd says none where none is given.
    let free = pod
        .start(&FOREVER, |config| {
            config["mounts"] = json!([{"host_path": volume, "container_path": "/hugepages"}]);
        })
        .await?;
    let script = "probe allocate /hugepages/more 10; rm /hugepages/more";
    same!(free.sh(script).await?.ok()?, "allocated");
    pod.remove().await?;
    Ok(cgroup)
}
