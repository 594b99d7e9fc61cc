//! The suite as the machine sees it: what is built before, one process in namespaces of its own, and a look for what it
//! left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{Setting, home, make_directory, node_image, text, write};
use crate::cri::network::Plugins;
use crate::harness::Tally;
use crate::prepare::{Tools, go_tools, lock, packages};

/// dockerd and what it is linked with, where that is not installed.
const PACKAGES: [&str; 5] = ["docker.io", "libdevmapper1.02.1", "libsystemd0", "libudev1", "tini"];
/// Everything; what hangs is ended.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What a cluster needs beside the tools of every suite.
struct Host {
    packages: PathBuf,
    iptables: PathBuf,
    kind: PathBuf,
    helm: PathBuf,
    kubernetes: PathBuf,
    image: node_image::NodeImage,
}

pub async fn run(tools: &Tools, filter: &[String], node_image: Option<&str>, rounds: Option<u32>) -> Result<Tally> {
    make_directory(&home())?;
    // dockerd's data are for one at a time.
    let _lock = lock::exclusive(&home().join("lock")).await?;
    let host = match prepare(tools, node_image).await {
        Ok(host) => host,
        Err(error) => {
            println!("skip  kind/everything: {error:#}");
            return Ok(Tally {
                skipped: 1,
                ..Tally::default()
            });
        }
    };
    let name = format!("nucleus-kind-{}", std::process::id());
    let directory = home().join(&name);
    make_directory(&directory)?;
    let file = directory.join("setting.json");
    let tally = directory.join("tally.json");
    let setting = Setting {
        data: home().join("docker"),
        packages: host.packages,
        iptables: host.iptables,
        busybox: tools.busybox.clone(),
        runc: tools.runc.clone(),
        kind: host.kind,
        helm: host.helm,
        kubernetes: host.kubernetes,
        shim: tools
            .shim
            .join("containerd-shim-nucleus-v2")
            .canonicalize()
            .context("find the shim")?,
        installer: tools.installer.clone(),
        image: host.image,
        cgroup: name.clone(),
        network: network(),
        filter: filter.to_vec(),
        rounds,
        tally: tally.clone(),
        directory: directory.clone(),
    };
    write(&file, serde_json::to_vec(&setting).context("write the setting")?)?;
    let mounts = mounts();
    let outcome = apart(&file).await;
    let left = left_behind(&name, &mounts).await;
    remove_cgroups(&name);
    outcome?;
    let count = fs::read(&tally)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let mut count: Tally = count.unwrap_or_else(|| {
        println!("FAIL  kind/everything: it did not come to its end");
        Tally {
            failed: 1,
            ..Tally::default()
        }
    });
    match left.as_slice() {
        [] => {
            println!("ok    kind/nothing is left of the clusters");
            count.passed += 1;
        }
        left => {
            println!(
                "FAIL  kind/nothing is left of the clusters\n      {}",
                left.join("\n      ")
            );
            count.failed += 1;
        }
    }
    if count.failed == 0 {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", text(&directory)))?;
    } else {
        println!("      logs: {}", text(&directory));
    }
    Ok(count)
}

async fn prepare(tools: &Tools, node_image: Option<&str>) -> Result<Host> {
    let plugins = Plugins::fetch().await?;
    let packages = packages::unpacked(&PACKAGES).await?;
    let kubernetes = go_tools::KUBERNETES.build().await?;
    let (kind, helm) = tokio::try_join!(go_tools::KIND.build(), go_tools::HELM.build())?;
    let image = node_image::prepare(tools, &kubernetes, node_image).await?;
    Ok(Host {
        packages,
        iptables: plugins.iptables,
        kind,
        helm,
        kubernetes,
        image,
    })
}

/// Runs the rest of the suite where no process, mount, interface or rule of it can be the machine's, and all of them
/// end with it.
async fn apart(setting: &Path) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(&program)
        .arg("inside")
        .arg(setting)
        .env_remove(crate::supervisor::SUPERVISED)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let mut child = unshare.spawn().context("start unshare")?;
    if tokio::time::timeout(LIMIT, child.wait()).await.is_err() {
        child.kill().await.context("end what hangs")?;
    }
    Ok(())
}

/// The network namespace of this process.
pub fn network() -> String {
    fs::read_link("/proc/self/ns/net").map_or_else(|_| String::new(), |link| text(&link))
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| point.contains("/kind/"))
        .map(str::to_owned)
        .collect()
}

/// Mounts and cgroups of the run that are still there after a while.
async fn left_behind(name: &str, before: &BTreeSet<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut left: Vec<String> = mounts()
            .difference(before)
            .map(|mount| format!("mount {mount}"))
            .collect();
        for top in tops(name) {
            walk(&top, &mut |path| left.push(format!("cgroup {}", text(path))));
        }
        if left.is_empty() || begun.elapsed() > Duration::from_secs(20) {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The run's cgroup in every hierarchy, where it is more than an empty directory that its runtime was given.
fn tops(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut tops: Vec<PathBuf> = hierarchies.map(|entry| entry.path().join(name)).collect();
    tops.push(Path::new("/sys/fs/cgroup").join(name));
    tops.into_iter().filter(|path| path.is_dir()).collect()
}

fn walk(top: &Path, tell: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), tell);
            tell(&entry.path());
        }
    }
}

fn remove_cgroups(name: &str) {
    for top in tops(name) {
        let remove = |path: &Path| {
            if let Err(error) = fs::remove_dir(path) {
                eprintln!("remove {}: {error}", text(path));
            }
        };
        walk(&top, &mut |path| remove(path));
        remove(&top);
    }
}
