//! The suite `cri`: what Kubernetes asks of a runtime through containerd's CRI service. critest, Kubernetes' own tests, runs
//! with the handlers `runc` and `nucleus` on private containerds; what passes with the first has to pass with the second.

mod busybox;
mod critest;
mod daemon;
mod images;
mod leaks;
mod network;

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

/// What `--list` says of it: the names are critest's.
pub const LIST: &str = "cri: every spec of critest 1.36.0 but those about images";

/// Runs critest with each runtime on each containerd and compares by name. Filters are names of specs or parts of them.
pub async fn run(tools: &Rc<Tools>, runtimes: &[Runtime], versions: &[Version], filter: &[String]) -> Result<Tally> {
    let kit = Kit::prepare(tools).await?;
    let mut tally = Tally::default();
    for &version in versions {
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
        for (runtime, (report, left)) in runtimes.iter().zip(try_join_all(runs).await?) {
            tally.add(if *runtime == Runtime::Runc {
                let own = comparison.of_runc(&report, runtimes.len() == 1);
                yardstick = Some(report);
                own
            } else {
                comparison.compare(&report, yardstick.as_ref())
            });
            tally.add(comparison.left_behind(*runtime, &left));
        }
    }
    Ok(tally)
}

/// One run, and what was left behind after it.
async fn one(
    tools: &Tools,
    kit: &Kit,
    comparison: &Comparison,
    version: Version,
    runtime: Runtime,
    filter: &[String],
) -> Result<(Report, Vec<String>)> {
    let daemon = CriDaemon::start(tools, kit, version).await?;
    let log = format!("critest-{}-{}", runtime.short_name(), version.name());
    let mut report = critest::run(&daemon, runtime, filter, &format!("{log}.log")).await?;
    let failed = report.results().filter(|(_, result)| result.verdict == Verdict::Failed);
    let again: Vec<String> = failed.map(|(name, _)| critest::pattern(name)).collect();
    if (1..=MOST_AGAIN).contains(&again.len()) {
        comparison.tell_again(runtime, &report);
        report.replace(critest::run(&daemon, runtime, &again, &format!("{log}-again.log")).await?);
    }
    let left = leaks::left_behind(&daemon).await;
    // For whoever has to find out why.
    let kept = target().join(format!("e2e/{log}-containerd.log"));
    std::fs::copy(daemon.log(), &kept).with_context(|| format!("write {}", kept.display()))?;
    Ok((report, left))
}
