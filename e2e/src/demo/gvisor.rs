//! The same for `--runtime gvisor`: a pod in a sentry, what the host sees of it, and what its programs see of the host.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::bench::idle;
use crate::container::{Builder, Container};
use crate::context::{Ctx, Worker};
use crate::processes;
use crate::task::policy::handler;

use super::{line, step};

const TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
const ROUNDS: usize = 5;

/// Containers that are ready before their clock runs: its milliseconds from Create to the reply to Start.
async fn start(builder: Builder<'_>) -> Result<(Container<'_>, f64)> {
    let prepared = builder.prepare().await?;
    let begun = Instant::now();
    let container = prepared.create().await?;
    container.start().await?;
    Ok((container, milliseconds(begun)))
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

fn sandbox(ctx: &Ctx) -> Builder<'_> {
    let builder = ctx.container().waiting();
    let id = builder.id.clone();
    builder.spec(|spec| {
        spec["annotations"] = json!({TYPE: "sandbox", SANDBOX: id});
        spec["hostname"] = json!("demo");
    })
}

fn member<'a>(ctx: &'a Ctx, pod: &str) -> Builder<'a> {
    ctx.container()
        .spec(|spec| spec["annotations"] = json!({TYPE: "container", SANDBOX: pod}))
}

/// The pod's life, told as it goes.
pub async fn show(ctx: &Ctx, worker: &Worker) -> Result<()> {
    let begun = Instant::now();
    let (pod, pod_ms) = start(sandbox(ctx)).await?;
    let script = "trap 'exit 7' TERM; echo web is up; while :; do sleep 3600 & wait $!; done";
    let (web, web_ms) = start(member(ctx, &pod.id).sh(script)).await?;
    let (sidecar, sidecar_ms) = start(member(ctx, &pod.id).waiting()).await?;
    step("started a pod: three containers in one sentry, behind one shim", begun);
    line("the sandbox", &format!("created and started in {pod_ms:.1} ms"));
    line("web", &format!("created and started in {web_ms:.1} ms"));
    line("sidecar", &format!("created and started in {sidecar_ms:.1} ms"));
    line("web wrote", web.stdout.wait_for("up").await?.trim_end());

    println!("\nwhat the host sees of it");
    let shim = processes::shim_of(pod.pid.get()).context("the sentry has ended too early")?;
    let own = idle::memory(&[shim], "Pss:")?;
    line("shim", &format!("process {shim}, {own:.0} KiB (PSS)"));
    for process in processes::descendants(shim)
        .into_iter()
        .filter(|process| process.parent == shim)
    {
        let name = process.command.split(' ').next().unwrap_or_default().to_owned();
        let memory = idle::memory(&[process.pid], "Pss:")?;
        line(&name, &format!("process {}, {memory:.0} KiB (PSS)", process.pid));
    }
    line("nothing else", "no process waits for a container or an exec");

    println!("\nwhat a program in it sees of the host");
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    line(
        "kernel",
        &format!("{}, and the host's is {host}", web.sh("uname -r").await?.ok()?.trim()),
    );
    let said = web.sh("dmesg | head -n 1").await?;
    line(
        "its kernel says",
        said.ok()?.split(']').next_back().unwrap_or_default().trim(),
    );
    let seen = web.sh("ps -o pid,args").await?;
    for text in seen.ok()?.lines() {
        line("processes", text);
    }

    println!("\nhow long it takes beside the native runtime (medians of {ROUNDS})");
    println!("    {:<34} {:>10} {:>10}", "", "gvisor", "native");
    for (what, ours, native) in compare(worker).await? {
        println!("    {what:<34} {ours:>7.1} ms {native:>7.1} ms");
    }

    let begun = Instant::now();
    web.kill(15).await?;
    let status = web.wait().await?;
    web.delete().await?;
    for container in [&sidecar, &pod] {
        container.kill(9).await?;
        container.wait().await?;
        container.delete().await?;
    }
    step("ended the pod", begun);
    line(
        "web",
        &format!("got SIGTERM and exited with {status}, as its script says"),
    );
    Ok(())
}

/// Medians of a container's steps, in a sentry of its own and natively.
async fn compare(worker: &Worker) -> Result<Vec<(&'static str, f64, f64)>> {
    const STEPS: [&str; 3] = ["create + start", "exec of /bin/true", "delete"];
    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    for round in 0..ROUNDS {
        for (number, options) in ["", "runtime = \"native\"\n"].into_iter().enumerate() {
            let ctx = Ctx::new(crate::context::Runtime::Gvisor, worker, 1 + round * 2 + number)?;
            let outcome = life(&ctx, options).await;
            ctx.clean_up().await?;
            for (all, one) in times[number].iter_mut().zip(outcome?) {
                all.push(one);
            }
        }
    }
    let mut rows = Vec::new();
    let [gvisor, native] = &mut times;
    for (what, (ours, theirs)) in STEPS.into_iter().zip(gvisor.iter_mut().zip(native)) {
        rows.push((what, super::compare::median(ours), super::compare::median(theirs)));
    }
    Ok(rows)
}

async fn life(ctx: &Ctx, options: &str) -> Result<[f64; 3]> {
    let (container, created) = start(ctx.container().waiting().options(handler(options))).await?;
    let begun = Instant::now();
    container.exec(&["/bin/true"]).output().await?.ok()?;
    let exec = milliseconds(begun);
    container.kill(9).await?;
    container.wait().await?;
    let begun = Instant::now();
    container.delete().await?;
    Ok([created, exec, milliseconds(begun)])
}
