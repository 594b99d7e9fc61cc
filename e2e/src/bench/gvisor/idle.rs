//! What pods cost that do nothing, while somebody asks for their figures each second, as containerd's CRI service does.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bench::idle::{helpers_of, memory};
use crate::context::Ctx;
use crate::processes;

use super::{Figures, Pod, Row, Subject};

/// Pods at a time. Not one more: runsc takes `t1-1` for ambiguous where there is a `t1-10`, and kills neither.
const PODS: usize = 4;
/// Seconds for which they are watched.
const SECONDS: u32 = 20;

const MEMORY: Row = Row {
    key: "pss",
    title: "memory of a pod, PSS",
    unit: "KiB",
};
const CPU: Row = Row {
    key: "idle_cpu",
    title: "CPU of an idle pod",
    unit: "ms/s",
};
const CHILDREN: Row = Row {
    key: "idle_cpu_children",
    title: "  of it in new processes",
    unit: "ms/s",
};

/// All that there is of pods on the host, shims included.
pub(super) async fn measure(ctx: &Ctx, subject: Subject, figures: &mut Figures) -> Result<()> {
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(Pod::start(ctx, subject).await?);
    }
    let mut before = Vec::new();
    for pod in &pods {
        before.push(times(&all_of(pod, subject)?));
    }
    let begun = Instant::now();
    for second in 1..=SECONDS {
        for container in pods.iter().flat_map(|pod| [&pod.first, &pod.member]) {
            // gVisor's own shim has an answer for some containers only; what it costs to ask is what counts.
            container.raw_metrics().await.ok();
        }
        tokio::time::sleep((begun + Duration::from_secs(second.into())).duration_since(Instant::now())).await;
    }
    for (pod, (own, children)) in pods.iter().zip(before) {
        let pids = all_of(pod, subject)?;
        let after = times(&pids);
        let each = |after: f64, before: f64| (after - before).max(0.0) / begun.elapsed().as_secs_f64();
        figures.add(CPU, subject, each(after.0 + after.1, own + children));
        figures.add(CHILDREN, subject, each(after.1, children));
        // Stubs of the platform come and go.
        let sizes = pids.iter().filter_map(|pid| memory(&[*pid], "Pss:").ok());
        figures.add(MEMORY, subject, sizes.sum());
    }
    for pod in &pods {
        pod.end().await?;
    }
    Ok(())
}

/// The shim and what is below it; natively without the containers' own processes, which a sentry holds inside.
fn all_of(pod: &Pod<'_>, subject: Subject) -> Result<Vec<u32>> {
    let init = pod.first.pid.get();
    if matches!(subject, Subject::Native | Subject::Runc) {
        return helpers_of(&[init, pod.member.pid.get()]);
    }
    // Of gVisor's own shim there is one for each container, which runsc's helpers are children of.
    let mut roots = vec![processes::shim_of(init).context("the sentry is gone")?];
    if subject == Subject::OwnShim {
        roots.extend(shims_named(&pod.member.id));
    }
    let below = roots.iter().flat_map(|root| processes::descendants(*root));
    let mut pids: Vec<u32> = below.map(|process| process.pid).chain(roots.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Shims that were started in the bundle of this container.
fn shims_named(id: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let is_shim = processes::text(*pid, "comm").starts_with("containerd-shim");
        is_shim
            && std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|path| path.file_name().is_some_and(|name| name == id))
    })
    .collect()
}

/// CPU time in milliseconds: of these processes, and of children of theirs that have ended.
fn times(pids: &[u32]) -> (f64, f64) {
    let (mut own, mut children) = (0, 0);
    for pid in pids {
        let stat = processes::text(*pid, "stat");
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), the third is the first here.
        let fields: Vec<u32> = after
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse().ok())
            .collect();
        own += fields.iter().take(2).sum::<u32>();
        children += fields.iter().skip(2).sum::<u32>();
    }
    // Ticks of USER_HZ, which is 100 on every architecture that we run on.
    (f64::from(own) * 10.0, f64::from(children) * 10.0)
}
