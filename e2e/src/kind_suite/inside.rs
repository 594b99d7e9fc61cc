//! The suite in its own namespaces: dockerd, one cluster after the other, and the behaviours on them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::behaviours::{self, Behaviour, Kind};
use super::cluster::Cluster;
use super::engine::Engine;
use super::workload::Space;
use super::{NAME, Setting, measure, outside, wanted, write};
use crate::harness::Tally;
use crate::second_try;

/// What the suite's process in its own namespaces is given.
#[derive(Args)]
pub struct InsideArgs {
    setting: PathBuf,
}

/// How many behaviours are tried at the same time: pods wait more than they work.
const AT_ONCE: usize = 4;
/// How long one may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs everything and writes the count.
pub async fn inside(args: &InsideArgs) -> Result<ExitCode> {
    let text = std::fs::read(&args.setting).with_context(|| format!("read {}", args.setting.display()))?;
    let setting: Setting = serde_json::from_slice(&text).context("read the setting")?;
    if outside::network() == setting.network {
        bail!("this part of the suite would change the machine's own network");
    }
    let engine = Engine::start(&setting).await?;
    // Whatever happens, dockerd ends as it should: a killed one leaves containers in its data.
    let outcome = match setting.rounds {
        Some(rounds) => measure::run(&engine, &setting, rounds).await.map(|()| Tally::default()),
        None => on_all(&engine, &setting).await,
    };
    engine.stop().await?;
    write(
        &setting.tally,
        serde_json::to_vec(&outcome?).context("write the count")?,
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn on_all(engine: &Engine, setting: &Setting) -> Result<Tally> {
    let begun = Instant::now();
    engine.load(&setting.image).await?;
    println!(
        "      kind: node image there after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let mut tally = Tally::default();
    for (kind, file) in Kind::ALL {
        let chosen: Vec<Rc<Behaviour>> = behaviours::all()
            .filter(|behaviour| behaviour.kind == kind && wanted(&behaviour.title(), &setting.filter))
            .map(Rc::new)
            .collect();
        if !chosen.is_empty() {
            tally.add(on_cluster(engine, setting, kind, file, &chosen).await?);
        }
    }
    if let Some(names) = second_try::summary() {
        println!("{names}");
    }
    Ok(tally)
}

async fn on_cluster(
    engine: &Engine,
    setting: &Setting,
    kind: Kind,
    file: &str,
    chosen: &[Rc<Behaviour>],
) -> Result<Tally> {
    let begun = Instant::now();
    let change = |config: &mut Value| kind.change(config);
    let mut cluster = Cluster::create(engine, setting, file, change).await?;
    if let Err(error) = kind.prepare(&mut cluster).await {
        cluster.delete(true).await?;
        return Err(error);
    }
    println!(
        "      kind: {} ready after {:.1} s",
        kind.name(),
        begun.elapsed().as_secs_f64()
    );
    let mut tally = Tally::default();
    // Each with the class and with the default runtime, runc, where it is about any runtime.
    let (together, alone): (Vec<_>, Vec<_>) = chosen.iter().partition(|behaviour| !behaviour.alone);
    let mut trials: Vec<(&Rc<Behaviour>, Option<&str>)> = Vec::new();
    for behaviour in together {
        if behaviour.on_runc {
            trials.push((behaviour, None));
        }
        trials.push((behaviour, Some("nucleus")));
    }
    let trials = futures_util::stream::iter(trials).map(|(behaviour, class)| one(&cluster, behaviour, class));
    let counts: Vec<Tally> = trials.buffer_unordered(AT_ONCE).collect().await;
    for count in counts {
        tally.add(count);
    }
    for behaviour in alone {
        if behaviour.on_runc {
            tally.add(one(&cluster, behaviour, None).await);
        }
        tally.add(one(&cluster, behaviour, Some("nucleus")).await);
    }
    cluster.delete(tally.failed > 0).await?;
    println!(
        "      kind: {} gone after {:.1} s",
        kind.name(),
        begun.elapsed().as_secs_f64()
    );
    Ok(tally)
}

async fn one(cluster: &Cluster<'_>, behaviour: &Behaviour, class: Option<&str>) -> Tally {
    let begun = Instant::now();
    let title = behaviour.title();
    let runtime = class.unwrap_or("runc");
    let mut outcome = in_time(cluster, behaviour, class).await;
    if let Err(error) = &outcome
        && second_try::grant(&format!("{NAME}/{title} ({runtime})"), &format!("      {error:#}"))
    {
        outcome = in_time(cluster, behaviour, class).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut tally = Tally::default();
    match outcome {
        Ok(()) => {
            println!("ok    {NAME}/{title} ({runtime}) {seconds:.1} s");
            tally.passed = 1;
        }
        Err(error) => {
            println!("FAIL  {NAME}/{title} ({runtime}) {seconds:.1} s\n      {error:#}");
            tally.failed = 1;
        }
    }
    tally
}

async fn in_time(cluster: &Cluster<'_>, behaviour: &Behaviour, class: Option<&str>) -> Result<()> {
    let outcome = tokio::time::timeout(PATIENCE, tried(cluster, behaviour, class)).await;
    outcome.unwrap_or_else(|_| Err(anyhow!("not done after {} s", PATIENCE.as_secs())))
}

/// Everything of a behaviour is in a namespace, which is removed after it, with all that is in it.
async fn tried(cluster: &Cluster<'_>, behaviour: &Behaviour, class: Option<&str>) -> Result<()> {
    let space = Space::new(cluster, class).await?;
    let outcome = (behaviour.run)(&space).await;
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(space.explain(error).await),
    };
    space.remove().await?;
    outcome
}
