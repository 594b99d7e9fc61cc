//! What idle containers cost: memory and wake-ups of the processes that stand beside each container; and memory once
//! they were used.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::{Ctx, Runtime, Worker};
use crate::processes;

use super::Metric;
use super::figures::{Figures, Pace, Subject};

/// Containers at a time: pages that shims share count a twentieth each.
const CONTAINERS: usize = 20;

/// Until shims have come to rest: ours gives memory back a second after a start.
const SETTLING: Duration = Duration::from_secs(2);
/// How long wake-ups are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// Starts twenty containers of a runtime, looks at their shims, and ends them.
pub async fn measure(
    worker: &Worker,
    runtime: Runtime,
    wanted: &dyn Fn(Metric) -> bool,
    figures: &mut Figures,
) -> Result<()> {
    eprintln!("bench: {CONTAINERS} idle containers of {} …", runtime.short_name());
    let ctx = Ctx::new(runtime, worker, usize::from(runtime == Runtime::Nucleus) + 1_000_000)?;
    let outcome = look(&ctx, wanted, figures).await;
    let cleaned = ctx.clean_up().await;
    outcome.with_context(|| format!("idle containers of {}", runtime.short_name()))?;
    cleaned
}

async fn look(ctx: &Ctx, wanted: &dyn Fn(Metric) -> bool, figures: &mut Figures) -> Result<()> {
    let mut running = Vec::new();
    for _ in 0..CONTAINERS {
        running.push(ctx.container().waiting().start().await?);
    }
    let mut helpers = Vec::new();
    for container in &running {
        helpers.push(helpers_of(&[container.pid.get()])?);
    }
    let subject = if ctx.is_nucleus() {
        Subject::Nucleus
    } else {
        Subject::Runc
    };
    let mut add = |metric, value| {
        if wanted(metric) {
            figures.add(metric, Pace::Paused, subject, value);
        }
    };
    tokio::time::sleep(SETTLING).await;
    let before: Vec<u64> = helpers.iter().map(|pids| switches(pids)).collect();
    tokio::time::sleep(WINDOW).await;
    for (pids, before) in helpers.iter().zip(before) {
        let woken = u32::try_from(switches(pids).saturating_sub(before)).context("count wake-ups")?;
        add(Metric::Wakeups, f64::from(woken) / WINDOW.as_secs_f64());
    }
    // After the window: the shims have been quiet for a while.
    for pids in &helpers {
        add(Metric::Pss, memory(pids, "Pss:")?);
        add(Metric::Rss, memory(pids, "Rss:")?);
    }
    // What probes bring back.
    for container in &running {
        container.exec(&["true"]).output().await?.ok()?;
    }
    tokio::time::sleep(SETTLING).await;
    for pids in &helpers {
        add(Metric::PssAfterExec, memory(pids, "Pss:")?);
    }
    Ok(())
}

/// The shim of containers and what it keeps running beside them, by the containers' first processes: their parent, and
/// that one's other children.
pub fn helpers_of(inits: &[u32]) -> Result<Vec<u32>> {
    let first = inits.first().context("no container")?;
    let shim = processes::shim_of(*first).with_context(|| format!("the container's process {first} is gone"))?;
    let below = processes::descendants(shim);
    let beside = below
        .iter()
        .filter(|process| process.parent == shim && !inits.contains(&process.pid) && process.state != 'Z');
    Ok(std::iter::once(shim).chain(beside.map(|process| process.pid)).collect())
}

/// A sum over processes of a line in smaps_rollup, in KiB.
pub fn memory(pids: &[u32], line: &str) -> Result<f64> {
    let mut sum = 0;
    for pid in pids {
        let text = processes::text(*pid, "smaps_rollup");
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        let value = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u32>().ok());
        sum += value.with_context(|| format!("no `{line}` in /proc/{pid}/smaps_rollup"))?;
    }
    Ok(f64::from(sum))
}

/// How often the threads of these processes were put on a processor and left it again.
fn switches(pids: &[u32]) -> u64 {
    let mut sum = 0;
    for pid in pids {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for thread in threads {
            let status = processes::text(*pid, &format!("task/{}/status", thread.file_name().to_string_lossy()));
            sum += status
                .lines()
                .filter_map(|line| {
                    line.split_once("voluntary_ctxt_switches:")?
                        .1
                        .trim()
                        .parse::<u64>()
                        .ok()
                })
                .sum::<u64>();
        }
    }
    sum
}
