//! `cargo e2e bench cri`: one pod's life through containerd's CRI service, by runc's shim and by nucleus, whose sandbox
//! is containerd's pause container or the shim's own. Pods on the host's network, since a CNI plugin takes longer than
//! all the rest and is the same for everybody. Interleaved rounds in one run; no client's floor is taken off.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::chart_suite::cri::{Cri, Pod};
use crate::containerd::Version;
use crate::context::Runtime;
use crate::cri::daemon::{CriDaemon, Kit};
use crate::cri::images::BUSYBOX;
use crate::{prepare, processes};

use super::figures::Summary;
use super::idle::{helpers_of, memory};

/// Who is measured.
const SUBJECTS: [Runtime; 3] = [Runtime::Runc, Runtime::Nucleus, Runtime::Sandboxed];

/// Rounds before the first that counts.
const WARM_UP: u32 = 2;

/// The quiet before an operation.
const PAUSE: Duration = Duration::from_millis(30);

/// Pods at a time whose memory is looked at: pages that shims share count a twentieth each.
const PODS: usize = 20;

/// Execs whose CPU time is summed: the kernel counts in ticks.
const EXECS: u32 = 20;

/// A line of the table: its key in the JSON, what people read, its unit.
type Row = (&'static str, &'static str, &'static str);

const RUN: Row = ("run_pod_sandbox", "RunPodSandbox", "ms");
const START: Row = ("create_start_container", "CreateContainer + StartContainer", "ms");
const WHOLE: Row = ("pod_start", "the three together", "ms");
const EXEC: Row = ("exec_sync", "ExecSync of /bin/true", "ms");
const EXEC_CPU: Row = ("exec_sync_cpu", "its CPU time beside containerd", "ms");
const END: Row = ("stop_remove", "StopPodSandbox + RemovePodSandbox", "ms");
const PSS: Row = ("pss", "memory of an idle pod, PSS", "KiB");
const PROCESSES: Row = ("processes", "its processes beside the container", "");

const ROWS: [Row; 8] = [RUN, START, WHOLE, EXEC, EXEC_CPU, END, PSS, PROCESSES];

/// Samples, by line and subject.
#[derive(Default)]
struct Figures(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Figures {
    fn add(&mut self, row: Row, subject: Runtime, value: f64) {
        self.0.entry((row.0, subject.short_name())).or_default().push(value);
    }

    fn summary(&self, row: Row, subject: Runtime) -> Option<Summary> {
        Summary::of(self.0.get(&(row.0, subject.short_name()))?)
    }

    fn print(&self, conditions: &str) {
        println!("\nEach operation after 30 ms of quiet; medians, and 90th percentiles in brackets\n");
        print!("{:<36} {:>4}", "", "");
        for subject in SUBJECTS {
            print!(" {:>19}", subject.short_name());
        }
        println!();
        for row in ROWS {
            print!("{:<36} {:>4}", row.1, row.2);
            for subject in SUBJECTS {
                let digits = usize::from(row.2 == "ms");
                let cell = self.summary(row, subject).map_or_else(
                    || "-".to_owned(),
                    |summary| format!("{:.digits$} ({:.digits$})", summary.median, summary.p90),
                );
                print!(" {cell:>19}");
            }
            println!();
        }
        println!(
            "\nPods of one container, on the host's network. CPU time is that of the shim and of all that it ran, \
             /bin/true with it.\n\
             Memory is that of the shim, the holders, and the pause container or what is there in its place, with \
             {PODS} pods.\n\
             {conditions}"
        );
    }

    /// By line: its unit, and median, 90th percentile and number of samples of each subject.
    fn to_json(&self) -> Value {
        let entry = |row: Row| {
            let subjects = SUBJECTS.into_iter().map(|subject| {
                let summary = self.summary(row, subject).unwrap_or_default();
                (subject.short_name().to_owned(), summary.to_json())
            });
            let unit = ("unit".to_owned(), json!(row.2));
            (
                row.0.to_owned(),
                Value::Object([unit].into_iter().chain(subjects).collect()),
            )
        };
        Value::Object(ROWS.into_iter().map(entry).collect::<Map<_, _>>())
    }
}

/// Measures and prints the table.
pub async fn bench(rounds: u32, json: Option<&PathBuf>, args: &prepare::PrepareArgs) -> Result<()> {
    let tools = prepare::prepare(args).await?;
    let kit = Kit::prepare(&tools).await?;
    let daemon = CriDaemon::start_with(&tools, &kit, Version::V2, "warn").await?;
    let cri = Cri::connect(&daemon.grpc_address()).await?;
    let mut figures = Figures::default();
    for round in 0..WARM_UP + rounds {
        eprintln!("bench: round {round} of {} …", WARM_UP + rounds);
        let mut order = SUBJECTS;
        order.rotate_left(usize::try_from(round)? % SUBJECTS.len());
        let mut seen = Figures::default();
        let counted = if round < WARM_UP { &mut seen } else { &mut figures };
        for subject in order {
            let life = life(&cri, &daemon, subject, round, counted).await;
            life.with_context(|| format!("round {round} of {}", subject.short_name()))?;
        }
    }
    for subject in SUBJECTS {
        eprintln!("bench: {PODS} idle pods of {} …", subject.short_name());
        let idle = idle(&cri, &daemon, subject, &mut figures).await;
        idle.with_context(|| format!("idle pods of {}", subject.short_name()))?;
    }
    // Its state is where the suite has it.
    figures.print(&super::conditions(args)?.replace(", its state on tmpfs", ""));
    if let Some(file) = json {
        let text = format!("{:#}\n", figures.to_json());
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        println!("\nFigures: {}", file.display());
    }
    Ok(())
}

/// One pod from its making to its end.
async fn life(cri: &Cri, daemon: &CriDaemon, subject: Runtime, round: u32, figures: &mut Figures) -> Result<()> {
    let begun = quiet().await;
    let mut pod = cri
        .run_sandbox(&format!("life-{round}"), subject.short_name(), &[])
        .await?;
    let run = since(begun);
    let begun = quiet().await;
    cri.start(&mut pod, BUSYBOX, &["sleep", "100000"]).await?;
    let start = since(begun);
    for (row, value) in [(RUN, run), (START, start), (WHOLE, run + start)] {
        figures.add(row, subject, value);
    }
    let begun = quiet().await;
    cri.exec(&pod, &["/bin/true"]).await?;
    figures.add(EXEC, subject, since(begun));
    let helpers = helpers(daemon, &pod).await?;
    let used = || helpers.iter().map(|pid| cpu_time(*pid)).sum::<Result<f64>>();
    let before = used()?;
    for _ in 0..EXECS {
        cri.exec(&pod, &["/bin/true"]).await?;
    }
    figures.add(EXEC_CPU, subject, (used()? - before) / f64::from(EXECS));
    let begun = quiet().await;
    cri.remove(&pod).await?;
    figures.add(END, subject, since(begun));
    Ok(())
}

async fn idle(cri: &Cri, daemon: &CriDaemon, subject: Runtime, figures: &mut Figures) -> Result<()> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        let mut pod = cri
            .run_sandbox(&format!("idle-{number}"), subject.short_name(), &[])
            .await?;
        cri.start(&mut pod, BUSYBOX, &["sleep", "100000"]).await?;
        pods.push(pod);
    }
    // Long enough for what a start leaves behind to be given back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for pod in &pods {
        let helpers = helpers(daemon, pod).await?;
        figures.add(PSS, subject, memory(&helpers, "Pss:")?);
        figures.add(PROCESSES, subject, u32::try_from(helpers.len())?.into());
    }
    for pod in &pods {
        cri.remove(pod).await?;
    }
    Ok(())
}

/// The pod's shim, and what it keeps running beside the container.
async fn helpers(daemon: &CriDaemon, pod: &Pod) -> Result<Vec<u32>> {
    let output = daemon
        .crictl()
        .args(["inspect", "--output", "json", pod.container()])
        .output()
        .await
        .context("run crictl inspect")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("read crictl inspect")?;
    let pid = told["info"]["pid"].as_u64().context("the container has no pid")?;
    helpers_of(&[u32::try_from(pid)?])
}

/// Milliseconds that a process used, and all of its children that it has waited for: fields 14 to 17 of
/// proc_pid_stat(5).
fn cpu_time(pid: u32) -> Result<f64> {
    let stat = processes::text(pid, "stat");
    let (_, rest) = stat
        .rsplit_once(')')
        .with_context(|| format!("process {pid} is gone"))?;
    let ticks = rest.split_whitespace().skip(14 - 3).take(4);
    let ticks = ticks.map(|field| field.parse::<u32>().context("read a process's times"));
    let sum: u32 = ticks.collect::<Result<Vec<_>>>()?.into_iter().sum();
    Ok(f64::from(sum) * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

async fn quiet() -> Instant {
    tokio::time::sleep(PAUSE).await;
    Instant::now()
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
