//! The suite `chart`: the Helm chart as helm renders it, and the node installer on real containerd.
//!
//! The nodes are directories: a containerd of its own with the configuration, socket and shim below one, and a systemd
//! that understands as much as it takes to restart it. Nothing of the machine is touched.

mod chart;
pub mod cri;
mod helm;
mod manifests;
mod node;
mod nodes;
mod schema;
mod systemd;
mod values;

use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::containerd::Version;
use crate::harness::Tally;
use crate::prepare::Tools;
use crate::prepare::go_tools;
use helm::Helm;

/// The suite's name.
pub const NAME: &str = "chart";

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A sentence about the chart, and what finds out whether it is true.
struct ChartTest {
    name: &'static str,
    run: for<'a> fn(&'a Helm) -> Outcome<'a>,
}

/// A sentence about a node, on a containerd.
struct NodeTest {
    name: &'static str,
    run: for<'a> fn(&'a Tools, Version) -> Outcome<'a>,
}

/// How long a test may take on a busy machine; the longest take a few seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// Prints the tests' names and counts them.
pub fn list(filter: &[String]) -> usize {
    let names = chart::TESTS.iter().map(|test| test.name);
    let names = names.chain(nodes::TESTS.iter().map(|test| test.name));
    let mut count = 0;
    for name in names.filter(|name| wanted(name, filter)) {
        println!("{NAME}: {name}");
        count += 1;
    }
    count
}

fn wanted(name: &str, filter: &[String]) -> bool {
    filter.is_empty()
        || filter
            .iter()
            .any(|words| format!("chart/{name}").contains(words.as_str()))
}

/// Runs the tests: those of the chart once, those of nodes on each containerd.
pub async fn run(tools: &Tools, versions: &[Version], filter: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    let chart_tests: Vec<&ChartTest> = chart::TESTS.iter().filter(|test| wanted(test.name, filter)).collect();
    if !chart_tests.is_empty() {
        let helm = Helm::new(&go_tools::HELM.build().await?)?;
        for test in chart_tests {
            tally.add(tell(test.name, "helm 4.3.1", (test.run)(&helm)).await);
        }
    }
    for &version in versions {
        for test in nodes::TESTS.iter().filter(|test| wanted(test.name, filter)) {
            if let (Version::V1, Err(reason)) = (version, &tools.containerd_1) {
                println!("skip  chart/{} ({}): {reason}", test.name, version.name());
                tally.skipped += 1;
                continue;
            }
            tally.add(tell(test.name, version.name(), (test.run)(tools, version)).await);
        }
    }
    Ok(tally)
}

async fn tell(name: &str, on: &str, test: Outcome<'_>) -> Tally {
    let begun = Instant::now();
    let outcome = match tokio::time::timeout(PATIENCE, test).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("not done after {} s", PATIENCE.as_secs())),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut tally = Tally::default();
    match outcome {
        Ok(()) => {
            println!("ok    chart/{name} ({on}) {seconds:.2} s");
            tally.passed = 1;
        }
        Err(error) => {
            println!("FAIL  chart/{name} ({on}) {seconds:.2} s\n{error:#}");
            tally.failed = 1;
        }
    }
    tally
}
