//! What programs do that are not about containers: the same loads, in each runtime.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::context::{Ctx, Worker};

use super::{Figures, Pod, Row, SUBJECTS, Subject, run};

/// How often each load is run for each runtime.
const ROUNDS: usize = 5;

const fn row(key: &'static str, title: &'static str) -> Row {
    Row { key, title, unit: "ms" }
}

/// Shell scripts of busybox: no system call in the first's loop, two in each step of the second, files on the rootfs in
/// the third.
const LOADS: [(Row, &str); 3] = [
    (
        row("load_cpu", "load: computing"),
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done",
    ),
    (
        row("load_syscalls", "load: 100,000 small reads, writes"),
        "dd if=/dev/zero of=/dev/null bs=1 count=50000 2>/dev/null",
    ),
    (
        row("load_files", "load: 1,000 files made, removed"),
        "mkdir /files && cd /files && i=0; while [ $i -lt 1000 ]; do echo x >f$i; i=$((i+1)); done; rm -r /files",
    ),
];

/// Runs them in a pod of each runtime, by turns.
pub(super) async fn measure(worker: &Worker, next: &mut impl FnMut() -> usize, figures: &mut Figures) -> Result<()> {
    for round in 0..ROUNDS {
        eprintln!("bench: loads, round {round} of {ROUNDS} …");
        for subject in SUBJECTS {
            let ctx = Ctx::new(subject.runtime(), worker, next())?;
            let outcome = each(&ctx, subject, figures).await;
            let cleaned = ctx.clean_up().await;
            outcome.with_context(|| format!("loads of {}", subject.title()))?;
            cleaned?;
        }
    }
    Ok(())
}

async fn each(ctx: &Ctx, subject: Subject, figures: &mut Figures) -> Result<()> {
    let pod = Pod::start(ctx, subject).await?;
    for (row, script) in LOADS {
        let begun = Instant::now();
        run(&pod.member, &["sh", "-c", script]).await?;
        figures.add(row, subject, begun.elapsed().as_secs_f64() * 1000.0);
    }
    pod.end().await
}
