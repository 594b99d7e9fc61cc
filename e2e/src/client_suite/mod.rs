//! The suite `client`: containerd's own integration tests of its client, `integration/client` in containerd's module.
//!
//! They come out of the module cache at the version that is tested, are built into a test binary once, and run with the
//! runc shim and with nucleus: what passes with the first has to pass with the second, or to stand in `differences`
//! with its reason. Each run has mounts, processes and a containerd of its own; images come from a registry inside this
//! process.

mod build;
mod differences;
mod images;
mod registry;
mod run;

use std::rc::Rc;

use anyhow::Result;

use crate::context::Runtime;
use crate::harness::Tally;
use crate::prepare::Tools;
use crate::yardstick::{Comparison, MOST_AGAIN, Report};

use registry::Registry;

/// The suite's name.
pub const NAME: &str = "client";

const COMPARISON: Comparison = Comparison {
    suite: NAME,
    place: "",
    reason: differences::reason,
};

/// The tests of `integration/client` that start containers; the rest is about images, content and snapshots, or needs a
/// runc that fails on purpose (TestIssue9103, TestIssue10589).
const TESTS: &str = "^Test(Container|Task|Daemon|Shim|Regress|Bind|Process|User|ClientReconnect|DefaultRuntime|Delete|\
                     IDMapped|Issue13030|Mount|New|RestartMonitor|RuntimeInfo|ShortRunning|UIDNoGID|WaitStopped)";

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
            COMPARISON.tell_again(runtime, &report);
            let pattern = format!("^({})$", again.into_iter().collect::<Vec<_>>().join("|"));
            let (second, left_again) = run::run(tools, &binary, &registry, runtime, &namespace, &pattern).await?;
            report.replace(second);
            left.extend(left_again);
        }
        if runtime == Runtime::Runc {
            tally = COMPARISON.of_runc(&report, runtimes.len() == 1);
            yardstick = Some(report);
        } else {
            tally = COMPARISON.compare(&report, yardstick.as_ref());
        }
        tally.add(COMPARISON.left_behind(runtime, &left));
    }
    Ok(tally)
}
