//! The suite `node`: a node with cgroup v2, systemd and AppArmor, which the machine of a developer may not have. A
//! Debian 12 of its own under qemu, emulated: containerd 1.6 and runc are Debian's, the shim and the tests are ours. In
//! it run the behaviours of `task` that depend on such a node, a smoke of the others, and some that only such a node
//! can show; on the driver cgroupfs and on systemd's, with the runc shim first.

mod apparmor;
mod behaviours;
mod image;
mod machine;
mod nested;
mod places;
mod report;
mod scopes;
mod sentry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Result;
use clap::Args;

use crate::containerd::Version;
use crate::context::Runtime;
use crate::harness::{self, Behaviour, Choice, Registry, Tally};
use crate::prepare::Tools;
use crate::second_try;
use crate::task;

/// The suite's name.
pub const NAME: &str = "node";

/// What `--list` says of it beside the names.
pub const LIST: &str =
    "node: behaviours of task, and those of node/…, in a machine with cgroup v2, systemd and AppArmor";

/// What is tried on the driver cgroupfs.
const ON_CGROUPFS: [&str; 21] = [
    "cgroups/",
    "check/",
    "crash/a running container",
    "devices/a device",
    "devices/a later rule",
    "devices/a rule's access",
    "devices/an exec",
    "exec/exec is in init's namespaces",
    "exec/exec runs",
    "labels/",
    "landlock/a user",
    "lifecycle/a program",
    "lifecycle/a task can be made again",
    "namespaces/a new cgroup namespace",
    "namespaces/exec into a user namespace",
    "node/",
    "pause/a",
    "resources/",
    "signals/a signal reaches",
    "stats/metrics tell",
    "update/the",
];

/// What is tried on systemd's: what depends on who made the cgroup. A container's statistics are not among it that has
/// ended: systemd takes a scope away with its last process.
const ON_SYSTEMD: [&str; 10] = [
    "cgroups/",
    "devices/a device that",
    "devices/an exec",
    "node/",
    "pause/a paused container is frozen",
    "resources/each",
    "resources/shares",
    "stats/metrics tell how many",
    "stats/metrics tell memory",
    "update/the",
];

/// The behaviours that the machine runs on one driver.
fn all(systemd: bool) -> Vec<Behaviour> {
    let mut registry = Registry::default();
    task::register(&mut registry);
    own(&mut registry, systemd);
    registry.into_behaviours()
}

/// What only such a machine can show: what a scope is on systemd's driver, and on cgroupfs what no driver changes.
fn own(registry: &mut Registry, systemd: bool) {
    registry.subject("node");
    behaviours::register(registry);
    nested::register(registry);
    sentry::register(registry);
    if systemd {
        scopes::register(registry);
    } else {
        apparmor::register(registry);
        places::register(registry);
    }
}

/// Titles for `--list`.
pub fn titles() -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for systemd in [false, true] {
        let mut registry = Registry::default();
        own(&mut registry, systemd);
        let behaviours = registry.into_behaviours();
        let own = behaviours.iter().map(|one| format!("{}/{}", one.subject, one.name));
        let new: Vec<String> = own.filter(|title| !titles.contains(title)).collect();
        titles.extend(new);
    }
    titles
}

/// Builds what is missing, starts the machine, and counts what it says.
pub async fn run(tools: &Rc<Tools>, runtimes: &[Runtime], filter: &[String]) -> Tally {
    match try_run(tools, runtimes, filter).await {
        Ok(tally) => tally,
        // The suites after this one do not need the machine.
        Err(error) => {
            println!("FAIL  node/machine: {error:#}");
            Tally {
                failed: 1,
                ..Tally::default()
            }
        }
    }
}

async fn try_run(tools: &Rc<Tools>, runtimes: &[Runtime], filter: &[String]) -> Result<Tally> {
    let host = match image::prepare().await? {
        Ok(host) => host,
        Err(error) => {
            println!("skip  node/everything: {error:#}");
            return Ok(Tally {
                skipped: 1,
                ..Tally::default()
            });
        }
    };
    let script = script(runtimes, filter);
    let payload = image::payload(tools, &script).await?;
    machine::run(&host, &payload).await
}

/// What the machine does, in shell: the tests on one driver, then on the other.
fn script(runtimes: &[Runtime], filter: &[String]) -> String {
    let runtimes: String = runtimes
        .iter()
        .map(|runtime| format!(" --runtime {}", runtime.short_name()))
        .collect();
    let chosen = |list: &[&str]| -> String {
        let words: Vec<String> = match filter {
            [] => list.iter().map(|&word| word.to_owned()).collect(),
            filter => filter.to_vec(),
        };
        words
            .iter()
            .map(|word| format!(" -k '{}'", word.replace('\'', "'\\''")))
            .collect()
    };
    let cgroupfs = chosen(&ON_CGROUPFS);
    let systemd = chosen(&ON_SYSTEMD);
    format!(
        "#!/bin/sh\n\
         cd /tmp\n\
         ip link set lo up\n\
         export CARGO_TARGET_DIR=/tmp/target {slower}=8 PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         mkdir -p /tmp/target\n\
         echo \"node: $(uname -r), $(stat -fc %T /sys/fs/cgroup), $(cat /sys/kernel/security/lsm)\"\n\
         {driver}=cgroupfs /mnt/e2e guest{runtimes}{cgroupfs}\n\
         {driver}=systemd /mnt/e2e guest{runtimes}{systemd}\n\
         echo {end}\n",
        slower = crate::node::SLOWER,
        driver = crate::node::DRIVER,
        end = report::END,
    )
}

/// What the machine is told on its command line.
#[derive(Args)]
pub struct GuestArgs {
    #[arg(short = 'k', long = "filter", value_name = "TEXT")]
    filter: Vec<String>,
    #[arg(long, value_enum)]
    runtime: Vec<Runtime>,
    /// How many tests run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where the shim and the probe are
    #[arg(long, default_value = "/mnt")]
    payload: PathBuf,
}

/// Runs behaviours on this very node.
pub async fn guest(args: GuestArgs) -> Result<ExitCode> {
    let tools = Rc::new(Tools {
        containerd_2: PathBuf::new(),
        containerd_1: Ok("/usr/bin".into()),
        runc: "/usr/sbin".into(),
        busybox: "/bin/busybox".into(),
        probe: args.payload.join("probe"),
        shim: args.payload.join("shim"),
        installer: PathBuf::new(),
        cli: args.payload.join("nucleus"),
        node: None,
    });
    let choice = Choice {
        filter: args.filter,
        runtimes: args.runtime,
        versions: vec![Version::V1],
        jobs: args.jobs,
    };
    let driver = if crate::node::has_systemd_driver() {
        "systemd"
    } else {
        "cgroupfs"
    };
    println!("driver: {driver}");
    let tally = harness::run(all(crate::node::has_systemd_driver()), &choice, &tools).await?;
    if let Some(names) = second_try::summary() {
        println!("{names}");
    }
    println!("{tally}");
    Ok(ExitCode::SUCCESS)
}

/// A file of the suite's own below `target/`.
fn home() -> PathBuf {
    crate::prepare::target().join("node")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is between backquotes.
    fn quoted(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }

    #[test]
    fn every_row_of_the_page_about_nodes_names_tests_that_there_are() {
        let page = include_str!("../../../docs/nodes.md");
        let all = all(false).into_iter().chain(all(true));
        let titles: Vec<String> = all.map(|one| format!("{}/{}", one.subject, one.name)).collect();
        let here = |title: &String| ON_CGROUPFS.iter().chain(&ON_SYSTEMD).any(|word| title.contains(word));
        let mut count = 0;
        for line in page.lines().filter(|line| line.starts_with('|')) {
            let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            for part in cell.split(';') {
                let in_machine = quoted(part).any(|word| word == NAME);
                for start in quoted(part).filter(|word| word.contains('/')) {
                    let found = titles.iter().filter(|title| title.starts_with(start));
                    let found = found.filter(|title| !in_machine || here(title)).count();
                    assert!(found > 0, "there is no {start:?}: {line}");
                    count += 1;
                }
            }
        }
        assert!(count >= 20, "{count} tests are named");
    }
}
