//! The suite `cri`: what Kubernetes asks of a runtime through containerd's CRI service. critest, Kubernetes' own tests,
//! runs with the handlers `runc` and `nucleus` on private containerds; what passes with the first has to pass with the
//! second. What critest does not ask is asked by behaviours of our own.

mod attach;
mod behaviours;
pub mod busybox;
mod critest;
pub mod daemon;
mod devices;
mod events;
mod hugepages;
pub mod images;
mod leaks;
mod lifecycle;
mod limits;
mod masking;
mod namespaces;
pub mod network;
mod pods;
mod resources;
mod sandboxes;
mod termination;
mod volumes;

use std::rc::Rc;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;

use crate::containerd::Version;
use crate::context::Runtime;
use crate::harness::Tally;
use crate::prepare::{Tools, target};
use crate::yardstick::{Comparison, MOST_AGAIN, Report, Verdict};

use daemon::{CriDaemon, Kit};

/// The suite's name.
pub const NAME: &str = "cri";

/// What `--list` says of critest: the names are its own.
pub const LIST: &str = "cri: every spec of critest 1.36.0 but those about images";

/// Names of the behaviours that a filter leaves.
pub fn list(filter: &[String]) -> impl Iterator<Item = String> {
    let wanted = behaviours::BEHAVIOURS.iter().filter(|one| one.is_wanted(filter));
    wanted.map(|one| format!("{NAME}: pods/{}", one.name))
}

/// Runs critest with each runtime on each containerd and compares by name; then what is our own. Filters that begin
/// with `pods/` are parts of our behaviours' names, others are of specs.
pub async fn run(tools: &Rc<Tools>, runtimes: &[Runtime], versions: &[Version], filter: &[String]) -> Result<Tally> {
    let mut kit = Kit::prepare(tools).await?;
    // Beside nucleus, with the newer containerd alone: the shim is the same, and so is what it is told.
    let with_others = runtimes.contains(&Runtime::Nucleus) && versions.contains(&Version::V2);
    if with_others {
        kit.install_runsc().await?;
    }
    let mut tally = Tally::default();
    for &version in versions {
        let mut runtimes = runtimes.to_vec();
        if with_others && version == Version::V2 {
            runtimes.extend([Runtime::Gvisor, Runtime::Sandboxed]);
        }
        if let (Version::V1, Err(reason)) = (version, &tools.containerd_1) {
            println!("skip  everything on containerd {}: {reason}", version.name());
            tally.skipped += runtimes.len();
            continue;
        }
        let comparison = Comparison {
            suite: NAME,
            place: match version {
                Version::V2 => " (2.4.2)",
                Version::V1 => " (1.6.20)",
            },
            reason: |_| None,
        };
        // Specs wait more than they work: the two run beside each other, on a containerd and in a network each.
        let runs = runtimes
            .iter()
            .map(|&runtime| one(tools, &kit, &comparison, version, runtime, filter));
        let mut yardstick: Option<Report> = None;
        for (runtime, run) in runtimes.iter().zip(try_join_all(runs).await?) {
            tally.add(run.behaviours);
            tally.add(comparison.left_behind(*runtime, &run.left));
            let Some(report) = run.specs else { continue };
            match runtime {
                Runtime::Runc => {
                    tally.add(comparison.of_runc(&report, runtimes.len() == 1));
                    yardstick = Some(report);
                }
                Runtime::Gvisor => {
                    let comparison = Comparison {
                        place: " (2.4.2, gvisor)",
                        reason: |name| limits::reason(limits::GVISOR, name),
                        ..comparison
                    };
                    tally.add(comparison.compare(&report, yardstick.as_ref()));
                }
                Runtime::Sandboxed => {
                    let comparison = Comparison {
                        place: " (2.4.2, sandboxed)",
                        reason: |name| limits::reason(limits::SANDBOXED, name),
                        ..comparison
                    };
                    tally.add(comparison.compare(&report, yardstick.as_ref()));
                }
                Runtime::Nucleus | Runtime::Runsc => tally.add(comparison.compare(&report, yardstick.as_ref())),
            }
        }
        tally.add(apart(tools, &kit, version, &runtimes, filter).await?);
    }
    Ok(tally)
}

/// What nothing may run beside, with one handler after another.
async fn apart(tools: &Tools, kit: &Kit, version: Version, runtimes: &[Runtime], filter: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    let ours: Vec<String> = filter.iter().filter(|text| is_ours(text)).cloned().collect();
    if ours.is_empty() && !filter.is_empty() || !behaviours::any_apart(&ours) {
        return Ok(tally);
    }
    let daemon = CriDaemon::start(tools, kit, version).await?;
    for &runtime in runtimes {
        tally.add(behaviours::run((tools, kit), &daemon, runtime, &ours, true).await?);
    }
    Ok(tally)
}

fn is_ours(filter: &str) -> bool {
    filter.starts_with("pods/")
}

struct Run {
    specs: Option<Report>,
    behaviours: Tally,
    left: Vec<String>,
}

/// One run of everything, and what was left behind after it.
async fn one(
    tools: &Tools,
    kit: &Kit,
    comparison: &Comparison,
    version: Version,
    runtime: Runtime,
    filter: &[String],
) -> Result<Run> {
    let daemon = CriDaemon::start(tools, kit, version).await?;
    let (ours, theirs): (Vec<String>, Vec<String>) = filter.iter().cloned().partition(|text| is_ours(text));
    let all = filter.is_empty();
    let log = format!("critest-{}-{}", runtime.short_name(), version.name());
    let specs = if all || !theirs.is_empty() {
        Some(specs(&daemon, comparison, runtime, &theirs, &log).await?)
    } else {
        None
    };
    let behaviours = if all || !ours.is_empty() {
        behaviours::run((tools, kit), &daemon, runtime, &ours, false).await?
    } else {
        Tally::default()
    };
    let left = leaks::left_behind(&daemon, runtime).await;
    // For whoever has to find out why.
    let kept = target().join(format!("e2e/{log}-containerd.log"));
    std::fs::copy(daemon.log(), &kept).with_context(|| format!("write {}", kept.display()))?;
    Ok(Run {
        specs,
        behaviours,
        left,
    })
}

/// critest, and once more what failed of it.
async fn specs(
    daemon: &CriDaemon,
    comparison: &Comparison,
    runtime: Runtime,
    filter: &[String],
    log: &str,
) -> Result<Report> {
    let mut report = critest::run(daemon, runtime, filter, &format!("{log}.log")).await?;
    let failed = report.results().filter(|(_, result)| result.verdict == Verdict::Failed);
    let again: Vec<String> = failed.map(|(name, _)| critest::pattern(name)).collect();
    if (1..=MOST_AGAIN).contains(&again.len()) {
        comparison.tell_again(runtime, &report);
        report.replace(critest::run(daemon, runtime, &again, &format!("{log}-again.log")).await?);
    }
    Ok(report)
}
