//! The same pod on both runtimes, and how long its steps take.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::context::{Ctx, Runtime, Worker};

use super::pod::Pod;

/// How many pods of each runtime.
pub const PODS: usize = 5;

const STEPS: [&str; 4] = [
    "first container, create + start",
    "second container, create + start",
    "exec of /bin/true",
    "delete of a container",
];

/// Runs the pods, in turn, and gives back the lines of a table.
pub async fn compare(worker: &Worker) -> Result<Vec<String>> {
    let mut times: [[Vec<f64>; STEPS.len()]; 2] = Default::default();
    for round in 0..PODS {
        for (runtime, times) in [Runtime::Runc, Runtime::Nucleus].into_iter().zip(&mut times) {
            let number = 1 + round * 2 + usize::from(runtime == Runtime::Nucleus);
            let ctx = Ctx::new(runtime, worker, number)?;
            // Names of their own: the demo's pod goes on undisturbed.
            let outcome = life(&ctx, &format!("-{number}")).await;
            let cleaned = ctx.clean_up().await;
            let measured = outcome.with_context(|| format!("a pod on {}", runtime.name()))?;
            cleaned?;
            for (all, one) in times.iter_mut().zip(measured) {
                all.push(one);
            }
        }
    }
    let [runc, nucleus] = &mut times;
    let mut lines = vec![format!("{:<34} {:>10} {:>10}", "", "nucleus", "runc")];
    for (step, (ours, theirs)) in STEPS.iter().zip(nucleus.iter_mut().zip(runc)) {
        lines.push(format!(
            "{step:<34} {:>7.1} ms {:>7.1} ms",
            median(ours),
            median(theirs)
        ));
    }
    Ok(lines)
}

async fn life(ctx: &Ctx, suffix: &str) -> Result<[f64; STEPS.len()]> {
    let pod = Pod::start(ctx, suffix).await?;
    let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1000.0;
    let begun = Instant::now();
    pod.web.exec(&["/bin/true"]).output().await?.ok()?;
    let exec = milliseconds(begun);
    pod.sidecar.kill(9).await?;
    pod.sidecar.wait().await?;
    let begun = Instant::now();
    pod.sidecar.delete().await?;
    Ok([pod.web_ms, pod.sidecar_ms, exec, milliseconds(begun)])
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
