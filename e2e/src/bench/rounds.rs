//! Times: one container's life a round, for each runtime and each pace.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use containerd_client::services::v1::version_client::VersionClient;

use crate::context::{Ctx, Runtime, Worker};
use crate::image;
use crate::io::Capture;

use super::Metric;
use super::figures::{Figures, Pace, Subject};

/// Rounds before the first that counts: caches fill, containerd's first connections are made.
const WARM_UP: u32 = 3;

/// The quiet before an operation: longer than the kernel's grace periods.
pub(super) const PAUSE: Duration = Duration::from_millis(30);

/// Measures all rounds.
pub async fn measure(
    worker: &Worker,
    rounds: u32,
    wanted: &dyn Fn(Metric) -> bool,
    figures: &mut Figures,
) -> Result<()> {
    let total = WARM_UP + rounds;
    for round in 0..total {
        if round % 10 == 0 {
            eprintln!("bench: round {round} of {total} …");
        }
        let mut seen = Figures::default();
        for pace in [Pace::Paused, Pace::BackToBack] {
            let mut order = [Some(Runtime::Runc), Some(Runtime::Nucleus), None];
            order.rotate_left(usize::try_from(round % 3)?);
            for runtime in order {
                let mut stopwatch = Stopwatch {
                    pace,
                    subject: subject(runtime),
                    wanted,
                    figures: if round < WARM_UP { &mut seen } else { figures },
                };
                match runtime {
                    Some(runtime) => {
                        let number = usize::try_from(round)? * 4 + usize::from(pace == Pace::Paused) * 2;
                        let number = number + usize::from(runtime == Runtime::Nucleus);
                        let ctx = Ctx::new(runtime, worker, number)?;
                        let outcome = life(&ctx, &mut stopwatch).await;
                        let cleaned = ctx.clean_up().await;
                        outcome.with_context(|| format!("round {round} of {}", runtime.short_name()))?;
                        cleaned.with_context(|| format!("after round {round} of {}", runtime.short_name()))?;
                    }
                    None => floor(worker, &mut stopwatch).await?,
                }
            }
        }
    }
    Ok(())
}

fn subject(runtime: Option<Runtime>) -> Subject {
    match runtime {
        Some(Runtime::Nucleus | Runtime::Gvisor | Runtime::Sandboxed) => Subject::Nucleus,
        Some(Runtime::Runc | Runtime::Runsc) => Subject::Runc,
        None => Subject::Client,
    }
}

struct Stopwatch<'a> {
    pace: Pace,
    subject: Subject,
    wanted: &'a dyn Fn(Metric) -> bool,
    figures: &'a mut Figures,
}

impl Stopwatch<'_> {
    /// Times an operation, after the pause that the pace has.
    async fn time<T>(&mut self, metric: Metric, operation: impl Future<Output = Result<T>>) -> Result<T> {
        if self.pace == Pace::Paused {
            tokio::time::sleep(PAUSE).await;
        }
        let begun = Instant::now();
        let outcome = operation.await.with_context(|| metric.title())?;
        let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
        if (self.wanted)(metric) {
            self.figures.add(metric, self.pace, self.subject, milliseconds);
        }
        Ok(outcome)
    }
}

/// Streams of a process, made before the clock runs and read in the background.
pub(super) struct Streams {
    uris: [String; 2],
    _captures: [Capture; 2],
}

impl Streams {
    pub(super) fn new(ctx: &Ctx, name: &str) -> Result<Self> {
        let path = |stream: &str| ctx.directory.join(format!("{name}-{stream}"));
        let (out, err) = (path("out"), path("err"));
        Ok(Self {
            _captures: [Capture::of_new_fifo(&out)?, Capture::of_new_fifo(&err)?],
            uris: [out.display().to_string(), err.display().to_string()],
        })
    }

    pub(super) fn uris(&self) -> [&str; 3] {
        ["", &self.uris[0], &self.uris[1]]
    }
}

/// One container from its making to its end.
async fn life(ctx: &Ctx, stopwatch: &mut Stopwatch<'_>) -> Result<()> {
    if [Metric::CreateStart, Metric::Exec, Metric::Delete]
        .iter()
        .any(|metric| (stopwatch.wanted)(*metric))
    {
        let streams = Streams::new(ctx, "init")?;
        let prepared = ctx.container().waiting().streams(streams.uris()).prepare().await?;
        let create_and_start = async {
            let container = prepared.create().await?;
            container.start().await?;
            Ok(container)
        };
        let container = stopwatch.time(Metric::CreateStart, create_and_start).await?;

        if (stopwatch.wanted)(Metric::Exec) {
            let streams = Streams::new(ctx, "exec")?;
            let exec = container.exec(&["/bin/true"]).streams(streams.uris());
            let to_the_end = async {
                let process = exec.create().await?;
                process.start().await?;
                let code = process.wait().await?;
                process.delete().await?;
                Ok(code)
            };
            let code = stopwatch.time(Metric::Exec, to_the_end).await?;
            if code != 0 {
                bail!("/bin/true by exec ended with {code}");
            }
        }

        container.kill(9).await?;
        container.wait().await?;
        stopwatch.time(Metric::Delete, container.delete()).await?;
    }
    if (stopwatch.wanted)(Metric::RunRm) {
        let mut run = ctx.daemon.ctr(&ctx.namespace);
        run.args(["run", "--rm", "--runtime", ctx.runtime.name(), "--fifo-dir"])
            .arg(&ctx.directory)
            .args([image::NAME, &ctx.new_id(), "/bin/true"]);
        stopwatch.time(Metric::RunRm, to_its_end(run)).await?;
    }
    Ok(())
}

/// What the same client needs for as many calls that do nothing.
async fn floor(worker: &Worker, stopwatch: &mut Stopwatch<'_>) -> Result<()> {
    let channel = worker.daemon.channel()?;
    for (metric, calls) in [(Metric::CreateStart, 2), (Metric::Exec, 4), (Metric::Delete, 1)] {
        let nothing = async {
            for _ in 0..calls {
                VersionClient::new(channel.clone())
                    .version(())
                    .await
                    .context("ask for the version")?;
            }
            Ok(())
        };
        if (stopwatch.wanted)(metric) {
            stopwatch.time(metric, nothing).await?;
        }
    }
    if (stopwatch.wanted)(Metric::RunRm) {
        let mut version = worker.daemon.ctr(&worker.namespace);
        version.arg("version");
        stopwatch.time(Metric::RunRm, to_its_end(version)).await?;
    }
    Ok(())
}

async fn to_its_end(mut command: tokio::process::Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await.context("run ctr")?;
    if !output.status.success() {
        bail!(
            "ctr: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}
