//! `cargo e2e bench`: nucleus and the runc shim side by side, in one run, on one containerd.
//!
//! Rounds are interleaved and begin with each runtime in turn, so that whatever else the machine does hits both. Every
//! operation is measured twice: after a pause, which is how pods and probes come (a cgroup's first write after a quiet
//! moment waits some ten milliseconds for a grace period of the kernel), and back to back, which hides that. What the
//! client itself costs is measured in the same rounds and taken off: as many calls of containerd's `Version`, which
//! does nothing, as the operation has calls; and `ctr version` for `ctr run`.

mod chart;
mod cri;
mod figures;
mod gvisor;
pub mod idle;
mod landlock;
mod rounds;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::containerd::{Daemon, Version};
use crate::context::{Runtime, Worker};
use crate::prepare::Profile;
use crate::{harness, image, kind_suite, prepare, unit};

use figures::Figures;

/// What is measured, how often, and where the figures go.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo e2e bench                            everything, as a table
  cargo e2e bench --json bench.json          … and as JSON, with charts beside it
  cargo e2e bench exec delete --rounds 100   two of them, more often
  cargo e2e bench landlock                   what each tier of Landlock costs
  cargo e2e bench cri --rounds 20            pods through CRI, with and without a pause container
  cargo e2e bench gvisor --rounds 10         pods in gVisor's sentry, beside gVisor's own shim
  cargo e2e bench kind --rounds 200          exec in a Kubernetes cluster
  cargo e2e bench seccomp                    the compiler of system call filters, beside libseccomp")]
pub struct BenchArgs {
    /// What to measure; nothing means everything but landlock, cri, gvisor, kind and seccomp
    #[arg(value_enum)]
    what: Vec<What>,
    /// Write the figures here, and charts beside them (no charts of landlock, cri and gvisor)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many times each operation is measured for each runtime
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    prepare: prepare::PrepareArgs,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Metric(Metric),
    Landlock,
    Cri,
    Gvisor,
    Seccomp,
    Kind,
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [What; 13] = [
            What::Metric(Metric::CreateStart),
            What::Metric(Metric::Exec),
            What::Metric(Metric::Delete),
            What::Metric(Metric::RunRm),
            What::Metric(Metric::Pss),
            What::Metric(Metric::Rss),
            What::Metric(Metric::PssAfterExec),
            What::Metric(Metric::Wakeups),
            What::Landlock,
            What::Cri,
            What::Gvisor,
            What::Seccomp,
            What::Kind,
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Metric(metric) => metric.to_possible_value(),
            Self::Landlock => Some(
                PossibleValue::new("landlock")
                    .help("The same container under each of Landlock's tiers: what they cost"),
            ),
            Self::Cri => Some(PossibleValue::new("cri").help(
                "A pod through CRI, by runc's shim and by nucleus with and without a pause container: times, CPU \
                 time, memory",
            )),
            Self::Seccomp => Some(
                PossibleValue::new("seccomp")
                    .help("The compiler of system call filters beside libseccomp: time, length, instructions a call"),
            ),
            Self::Kind => Some(
                PossibleValue::new("kind")
                    .help("kubectl exec and exec probes in a real cluster, by nucleus and by runc: CPU time"),
            ),
            Self::Gvisor => {
                Some(PossibleValue::new("gvisor").help(
                    "A pod in gVisor's sentry, by nucleus and by gVisor's own shim: times, memory, idle CPU, loads",
                ))
            }
        }
    }
}

/// What can be measured, by its name in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Metric {
    /// Create and Start of a task, from the first request to the last reply
    CreateStart,
    /// /bin/true in a running container: Exec, Start, Wait, Delete
    Exec,
    /// Delete of a task that has ended
    Delete,
    /// `ctr run --rm` of /bin/true, the whole command
    RunRm,
    /// Proportional memory of the shim and its helpers for each idle container, with 20 of them
    Pss,
    /// The same as resident memory: shared pages count in full
    Rss,
    /// Proportional memory once each of the containers has had an exec
    PssAfterExec,
    /// How often the shim and its helpers wake up in a second while nothing happens
    Wakeups,
}

impl Metric {
    /// The name in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::CreateStart => "create_start",
            Self::Exec => "exec",
            Self::Delete => "delete",
            Self::RunRm => "run_rm",
            Self::Pss => "pss",
            Self::Rss => "rss",
            Self::PssAfterExec => "pss_after_exec",
            Self::Wakeups => "wakeups",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::CreateStart | Self::Exec | Self::Delete | Self::RunRm => "ms",
            Self::Pss | Self::Rss | Self::PssAfterExec => "KiB",
            Self::Wakeups => "per second",
        }
    }

    /// What people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::CreateStart => "create + start",
            Self::Exec => "exec of /bin/true",
            Self::Delete => "delete",
            Self::RunRm => "ctr run --rm",
            Self::Pss => "memory, PSS",
            Self::Rss => "memory, RSS",
            Self::PssAfterExec => "PSS after an exec",
            Self::Wakeups => "idle wake-ups",
        }
    }

    /// How many times less than the runc shim the project wants to need.
    pub fn goal(self) -> Option<f64> {
        match self {
            Self::CreateStart | Self::Pss => Some(5.0),
            Self::Exec => Some(6.0),
            Self::Delete => Some(3.0),
            Self::RunRm | Self::Rss | Self::PssAfterExec | Self::Wakeups => None,
        }
    }

    fn is_time(self) -> bool {
        self.unit() == "ms"
    }
}

/// `cargo e2e bench`.
pub async fn bench(args: BenchArgs) -> Result<ExitCode> {
    if let Some(alone) = args.what.iter().find(|what| matches!(what, What::Cri | What::Gvisor)) {
        if args.what.len() > 1 {
            bail!("cri and gvisor are measured by themselves: name nothing beside them");
        }
        match alone {
            What::Cri => cri::bench(args.rounds, args.json.as_ref(), &args.prepare).await?,
            _ => gvisor::bench(args.rounds, args.json.as_ref(), &args.prepare).await?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.what.contains(&What::Landlock) {
        if args.what.len() > 1 {
            bail!("landlock is measured by itself: name nothing beside it");
        }
        landlock::bench(args.rounds, args.json.as_ref(), &args.prepare).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.what.contains(&What::Seccomp) {
        if args.what.len() > 1 {
            bail!("seccomp is measured by itself: name nothing beside it");
        }
        return unit::bench_seccomp().await;
    }
    if args.what.contains(&What::Kind) {
        if args.what.len() > 1 || args.json.is_some() {
            bail!("kind is measured by itself, and printed alone: name nothing beside it");
        }
        let tools = prepare::prepare(&args.prepare).await?;
        kind_suite::bench(&tools, args.rounds).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |metric: Metric| args.what.is_empty() || args.what.contains(&What::Metric(metric));
    let tools = Rc::new(prepare::prepare(&args.prepare).await?);
    let image = Rc::new(image::build(&tools, &harness::image_file()?)?);
    let daemon = Rc::new(Daemon::start_for_measuring(&tools, Version::V2, Vec::new()).await?);
    let namespace = format!("e2e{}-bench", std::process::id());
    let worker = Worker::new(daemon, tools, image, namespace.clone()).await?;
    let mut figures = Figures::default();
    let outcome = measure(&args, &wanted, &worker, &mut figures).await;
    harness::remove_namespace_cgroups(&namespace);
    outcome?;

    print!("{}", table::table(&figures, &conditions(&args.prepare)?));
    if let Some(file) = &args.json {
        let text = format!("{:#}\n", figures.to_json());
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        println!("\nFigures: {}", file.display());
        for (chart, svg) in chart::charts(&figures) {
            let path = file.with_extension(format!("{chart}.svg"));
            std::fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
            println!("Chart:   {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    args: &BenchArgs,
    wanted: &dyn Fn(Metric) -> bool,
    worker: &Worker,
    figures: &mut Figures,
) -> Result<()> {
    let metrics = Metric::value_variants();
    if metrics.iter().any(|metric| metric.is_time() && wanted(*metric)) {
        rounds::measure(worker, args.rounds, wanted, figures).await?;
    }
    if metrics.iter().any(|metric| !metric.is_time() && wanted(*metric)) {
        for runtime in [Runtime::Runc, Runtime::Nucleus] {
            idle::measure(worker, runtime, wanted, figures).await?;
        }
    }
    if figures.is_empty() {
        bail!("nothing was measured");
    }
    Ok(())
}

/// What the figures depend on, for the line under the table.
fn conditions(args: &prepare::PrepareArgs) -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's version")?;
    let load = std::fs::read_to_string("/proc/loadavg").context("read the machine's load")?;
    let cpus = std::thread::available_parallelism().context("count the processors")?;
    let mut text = format!(
        "Linux {}, {cpus} processors, load {} at the end; containerd 2.4.2, its state on tmpfs.",
        kernel.trim(),
        load.split(' ').next().unwrap_or_default(),
    );
    if args.profile == Profile::Quick {
        text.push_str("\nThe shim was built with the quick profile: these are not figures to publish.");
    }
    Ok(text)
}
