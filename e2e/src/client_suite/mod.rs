//! The suite `client`: containerd's own integration tests of its client, `integration/client` in containerd's module.
//!
//! They come out of the module cache at the version that is tested, are built into a test binary once, and run with the
//! runc shim and with nucleus: what passes with the first has to pass with the second, or to stand in `differences` with
//! its reason. Each run has mounts, processes and a containerd of its own; images come from a registry inside this
//! process.

mod build;
mod differences;
mod images;
mod registry;
mod report;
mod run;

use std::rc::Rc;

use anyhow::Result;

use crate::context::Runtime;
use crate::harness::Tally;
use crate::prepare::Tools;

use registry::Registry;
use report::{Report, Verdict};

/// The suite's name.
pub const NAME: &str = "client";

/// The tests of `integration/client` that start containers; the rest is about images, content and snapshots, or needs a
/// runc that fails on purpose (TestIssue9103, TestIssue10589).
const TESTS: &str = "^Test(Container|Task|Daemon|Shim|Regress|Bind|Process|User|ClientReconnect|DefaultRuntime|Delete|\
                     IDMapped|Issue13030|Mount|New|RestartMonitor|RuntimeInfo|ShortRunning|UIDNoGID|WaitStopped)";

/// Failed tests up to this number are tried once more, with either runtime, and that is printed. Some race with what they look
/// at: `TestDaemonReconnectsToShimIOPipesOnRestart` reads containerd's log right after a kill, and a kill that is answered in
/// two milliseconds can be faster than containerd copies its log.
const MOST_AGAIN: usize = 3;

/// What `--list` says of it: the names are containerd's, and known to its binary alone.
pub const LIST: &str = "client: those of containerd's own client tests that start containers";

/// Runs the tests with each runtime and compares by name. Filters are names or parts of them.
pub async fn run(tools: &Rc<Tools>, runtimes: &[Runtime], filter: &[String]) -> Result<Tally> {
    let binary = build::test_binary().await?;
    let registry = Registry::serve(images::images(tools)?).await?;
    let pattern = if filter.is_empty() {
        TESTS.to_owned()
    } else {
        filter.join("|")
    };
    let mut yardstick: Option<Report> = None;
    let mut tally = Tally::default();
    for &runtime in runtimes {
        let namespace = format!("e2e{}-client-{}", std::process::id(), runtime.short_name());
        let (mut report, mut left) = run::run(tools, &binary, &registry, runtime, &namespace, &pattern).await?;
        let again = report.failed_but_not_in(yardstick.as_ref());
        if (1..=MOST_AGAIN).contains(&again.len()) {
            for (name, result) in report.results().filter(|(_, result)| result.verdict == Verdict::Failed) {
                println!("again client/{name} ({})\n{}", runtime.short_name(), result.shown());
            }
            let pattern = format!("^({})$", again.into_iter().collect::<Vec<_>>().join("|"));
            let (second, left_again) = run::run(tools, &binary, &registry, runtime, &namespace, &pattern).await?;
            report.replace(second);
            left.extend(left_again);
        }
        if runtime == Runtime::Runc {
            println!(
                "      client: the runc shim: {} passed, {} failed, {} skipped",
                report.count(Verdict::Passed),
                report.count(Verdict::Failed),
                report.count(Verdict::Skipped)
            );
            tally = of_runc(&report, runtimes.len() == 1);
            yardstick = Some(report);
        } else {
            tally = compare(&report, yardstick.as_ref());
            tally.add(counted(if left.is_empty() {
                Verdict::Passed
            } else {
                Verdict::Failed
            }));
        }
        let word = if runtime == Runtime::Runc { "note" } else { "FAIL" };
        for left in left {
            println!("{word}  client/left behind ({}): {left}", runtime.short_name());
        }
    }
    Ok(tally)
}

/// With the yardstick alone its own results are what counts.
fn of_runc(report: &Report, alone: bool) -> Tally {
    let mut tally = Tally::default();
    for (name, result) in report.results() {
        if result.verdict == Verdict::Failed {
            println!("fail  client/{name} (runc)\n{}", result.shown());
        }
        tally.add(counted(result.verdict));
    }
    if alone { tally } else { Tally::default() }
}

fn compare(report: &Report, yardstick: Option<&Report>) -> Tally {
    let mut tally = Tally::default();
    for (name, result) in report.results() {
        let theirs = yardstick.and_then(|yardstick| yardstick.verdict(name));
        let reason = differences::reason(name);
        let verdict = match (result.verdict, theirs) {
            (Verdict::Passed, _) => {
                if reason.is_some() {
                    println!("note  client/{name} passes: it need not stand among the differences");
                }
                Verdict::Passed
            }
            (_, Some(Verdict::Failed)) => {
                println!("skip  client/{name}: the runc shim does not pass it on this machine either");
                Verdict::Skipped
            }
            (Verdict::Skipped, theirs) if theirs != Some(Verdict::Passed) => Verdict::Skipped,
            _ => match reason {
                Some(reason) => {
                    println!("skip  client/{name}: {reason}");
                    Verdict::Skipped
                }
                None => {
                    println!("FAIL  client/{name} (nucleus)\n{}", result.shown());
                    Verdict::Failed
                }
            },
        };
        tally.add(counted(verdict));
    }
    for name in yardstick.into_iter().flat_map(|yardstick| yardstick.missing_in(report)) {
        if let Some(reason) = differences::reason(&name) {
            println!("skip  client/{name}: {reason}");
            tally.add(counted(Verdict::Skipped));
            continue;
        }
        println!("FAIL  client/{name} (nucleus)\n      it passes with the runc shim and did not come to an end here");
        tally.add(counted(Verdict::Failed));
    }
    tally
}

fn counted(verdict: Verdict) -> Tally {
    Tally {
        passed: (verdict == Verdict::Passed).into(),
        failed: (verdict == Verdict::Failed).into(),
        skipped: (verdict == Verdict::Skipped).into(),
    }
}
