//! What programs do that are not about containers: the same loads, in each runtime.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::context::{Ctx, Worker};
use crate::spec;

use super::{Figures, Pod, Row, SUBJECTS, Subject, run};

/// How often each load is run for each runtime.
const ROUNDS: usize = 5;

const fn row(key: &'static str, title: &'static str) -> Row {
    Row { key, title, unit: "ms" }
}

/// Makes files in a directory, and removes them.
macro_rules! files_in {
    ($directory:literal) => {
        concat!(
            "mkdir -p ",
            $directory,
            "/f && cd ",
            $directory,
            "/f && i=0; while [ $i -lt 1000 ]; do echo x >f$i; i=$((i+1)); done; rm -r ../f"
        )
    };
}

/// Shell scripts of busybox: no system call in the first's loop, two in each step of the second; then files, on the
/// root file system, in an emptyDir volume, and in one that gVisor is told to keep.
const LOADS: [(Row, &str); 5] = [
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
        files_in!("/files"),
    ),
    (
        row("load_files_volume", "  in an emptyDir volume"),
        files_in!("/volume"),
    ),
    (
        row("load_files_kept", "  in one that the sentry keeps"),
        files_in!("/kept"),
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
    let volumes = volumes(ctx)?;
    let pod = Pod::start_with(ctx, subject, |spec| {
        for (name, source) in &volumes {
            let source = source.display().to_string();
            spec::push(
                spec,
                "/mounts",
                spec::mount(&format!("/{name}"), "bind", &source, &["rbind", "rw"]),
            );
            if *name == "kept" {
                // Natively they say nothing. gVisor's own shim goes by kubelet's paths alone; what is said here is what
                // it would make of a volume on disk.
                let kind = if subject == Subject::OwnShim { "tmpfs" } else { "bind" };
                for (field, value) in [("share", "pod"), ("type", kind), ("source", &source)] {
                    spec["annotations"][format!("dev.gvisor.spec.mount.{name}.{field}")] = value.into();
                }
            }
        }
    })
    .await?;
    for (row, script) in LOADS {
        let begun = Instant::now();
        run(&pod.member, &["sh", "-c", script]).await?;
        figures.add(row, subject, begun.elapsed().as_secs_f64() * 1000.0);
    }
    pod.end().await
}

/// Two emptyDir volumes, where a kubelet would have them.
fn volumes(ctx: &Ctx) -> Result<[(&'static str, PathBuf); 2]> {
    let above = ctx.directory.join("kubelet/pods/pod/volumes/kubernetes.io~empty-dir");
    let volumes = ["volume", "kept"].map(|name| (name, above.join(name)));
    for (_, path) in &volumes {
        std::fs::create_dir_all(path)?;
    }
    Ok(volumes)
}
