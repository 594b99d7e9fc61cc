//! `cargo e2e bench gvisor`: pods of two containers in gVisor's sentry, by nucleus and by gVisor's own shim with the
//! same runsc, beside nucleus' native runtime and runc's shim. Interleaved rounds in one run; no client's floor is
//! taken off.

mod idle;
mod life;
mod loads;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::container::{Builder, Container};
use crate::containerd::{Daemon, Version};
use crate::context::{Ctx, Runtime, Worker};
use crate::gvisor::Installed;
use crate::prepare::{self, Tools};
use crate::task::policy::handler;
use crate::{harness, image};

/// Rounds before the first that counts.
const WARM_UP: u32 = 2;

const SUBJECTS: [Subject; 4] = [Subject::Ours, Subject::OwnShim, Subject::Native, Subject::Runc];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// nucleus with runtime = "gvisor".
    Ours,
    /// containerd-shim-runsc-v1.
    OwnShim,
    /// nucleus with the native runtime.
    Native,
    /// runc's shim.
    Runc,
}

impl Subject {
    fn runtime(self) -> Runtime {
        match self {
            Self::Ours | Self::Native => Runtime::Gvisor,
            Self::OwnShim => Runtime::Runsc,
            Self::Runc => Runtime::Runc,
        }
    }

    /// Its name in the JSON.
    fn key(self) -> &'static str {
        match self {
            Self::Ours => "nucleus_gvisor",
            Self::OwnShim => "runsc_shim",
            Self::Native => "nucleus",
            Self::Runc => "runc",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Ours => "nucleus, gvisor",
            Self::OwnShim => "gVisor's own shim",
            Self::Native => "nucleus, native",
            Self::Runc => "runc",
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
}

/// Samples, by line and subject, in the order in which lines are first met.
#[derive(Default)]
struct Figures {
    rows: Vec<Row>,
    values: BTreeMap<(Row, Subject), Vec<f64>>,
}

impl Figures {
    fn add(&mut self, row: Row, subject: Subject, value: f64) {
        if !self.rows.contains(&row) {
            self.rows.push(row);
        }
        self.values.entry((row, subject)).or_default().push(value);
    }
}

/// Measures and prints the table.
pub async fn bench(rounds: u32, json: Option<&PathBuf>, args: &prepare::PrepareArgs) -> Result<()> {
    let own_shim = prepare::gvisor_shim().await?;
    let installed = Installed::new(&own_shim.join("runsc"))?;
    let tools = Tools {
        node: Some(installed.configuration("")?),
        ..prepare::prepare(args).await?
    };
    let tools = Rc::new(tools);
    let image = Rc::new(image::build(&tools, &harness::image_file()?)?);
    let daemon = Rc::new(Daemon::start_for_measuring(&tools, Version::V2, vec![own_shim]).await?);
    let namespace = format!("e2e{}-bench", std::process::id());
    let worker = Worker::new(daemon, tools, image, namespace.clone()).await?;
    let mut figures = Figures::default();
    let outcome = measure(&worker, rounds, &mut figures).await;
    harness::remove_namespace_cgroups(&namespace);
    for left in ["/run/containerd/runsc", "/var/run/containerd/runsc"] {
        // gVisor's shim leaves its directory of the namespace.
        std::fs::remove_dir_all(Path::new(left).join(&namespace)).ok();
    }
    outcome?;
    table::print(&figures, &super::conditions(args)?);
    if let Some(file) = json {
        let text = format!("{:#}\n", table::to_json(&figures));
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        println!("\nFigures: {}", file.display());
    }
    Ok(())
}

async fn measure(worker: &Worker, rounds: u32, figures: &mut Figures) -> Result<()> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let mut seen = Figures::default();
    for round in 0..WARM_UP + rounds {
        eprintln!("bench: round {round} of {} …", WARM_UP + rounds);
        let mut order = SUBJECTS;
        order.rotate_left(usize::try_from(round)? % SUBJECTS.len());
        let counted = if round < WARM_UP { &mut seen } else { &mut *figures };
        for subject in order {
            let ctx = Ctx::new(subject.runtime(), worker, next())?;
            let outcome = life::measure(&ctx, subject, counted).await;
            let cleaned = ctx.clean_up().await;
            outcome.with_context(|| format!("round {round} of {}", subject.title()))?;
            cleaned?;
        }
    }
    for subject in SUBJECTS {
        eprintln!("bench: idle pods of {} …", subject.title());
        let ctx = Ctx::new(subject.runtime(), worker, next())?;
        let outcome = idle::measure(&ctx, subject, figures).await;
        let cleaned = ctx.clean_up().await;
        outcome.with_context(|| format!("idle pods of {}", subject.title()))?;
        cleaned?;
    }
    loads::measure(worker, &mut next, figures).await
}

/// A pod's first container and one that joins it, as CRI describes them.
struct Pod<'a> {
    first: Container<'a>,
    member: Container<'a>,
}

impl<'a> Pod<'a> {
    async fn start(ctx: &'a Ctx, subject: Subject) -> Result<Self> {
        Self::start_with(ctx, subject, |_| ()).await
    }

    /// With a change to what both containers are given.
    async fn start_with(ctx: &'a Ctx, subject: Subject, change: impl Fn(&mut Value)) -> Result<Self> {
        let first = first(ctx, subject).spec(&change).start().await?;
        let member = member(ctx, subject, &first.id).spec(&change).start().await?;
        Ok(Self { first, member })
    }

    async fn end(&self) -> Result<()> {
        for container in [&self.member, &self.first] {
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
        }
        Ok(())
    }
}

fn first(ctx: &Ctx, subject: Subject) -> Builder<'_> {
    let builder = container(ctx, subject);
    let id = builder.id.clone();
    annotated(builder, "sandbox", &id)
}

fn member<'a>(ctx: &'a Ctx, subject: Subject, pod: &str) -> Builder<'a> {
    annotated(container(ctx, subject), "container", pod)
}

fn container(ctx: &Ctx, subject: Subject) -> Builder<'_> {
    let builder = ctx.container().waiting().streams(["", "", ""]);
    match subject {
        Subject::Native => builder.options(handler("runtime = \"native\"\n")),
        Subject::Ours | Subject::OwnShim | Subject::Runc => builder,
    }
}

fn annotated<'a>(builder: Builder<'a>, kind: &str, pod: &str) -> Builder<'a> {
    builder.spec(|spec| {
        spec["annotations"] = json!({
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": pod,
            "io.kubernetes.cri.container-name": "bench",
        });
    })
}

/// Runs a program in a container to its end, without streams.
async fn run(container: &Container<'_>, args: &[&str]) -> Result<()> {
    let process = container.exec(args).streams(["", "", ""]).create().await?;
    process.start().await?;
    let code = process.wait().await?;
    process.delete().await?;
    ensure!(code == 0, "{args:?} ended with {code}");
    Ok(())
}
