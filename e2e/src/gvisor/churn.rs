//! Programs that end at once, and pods of which something is killed at any moment.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use containerd_client::tonic::Code;

use crate::context::{Ctx, end_task};
use crate::harness::Registry;
use crate::{image, leaks, processes, same};

use super::pods::{member, sandbox};

/// Sets how many times each is tried, where CI's few are not enough: `NUCLEUS_GVISOR_ROUNDS=200`.
const ROUNDS: &str = "NUCLEUS_GVISOR_ROUNDS";
/// How many that is otherwise: each takes a second or two.
const FEW: u64 = 16;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Shim,
    Sentry,
    Gofer,
    Nobody,
}

const VICTIMS: [Victim; 4] = [Victim::Shim, Victim::Sentry, Victim::Gofer, Victim::Nobody];

fn rounds() -> u64 {
    let given = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(FEW)
}

pub fn register(t: &mut Registry) {
    t.add(
        "ctr run --rm ends with its program's own status, each time",
        async |c| {
            for round in 0..rounds() {
                let id = c.new_id();
                let directory = c.directory.display().to_string();
                let code = (round % 2 * 7).to_string();
                let output = c
                    .ctr(&[
                        "run",
                        "--rm",
                        "--runtime",
                        c.runtime.name(),
                        "--fifo-dir",
                        &directory,
                        image::NAME,
                        &id,
                        "sh",
                        "-c",
                        &format!("exit {code}"),
                    ])
                    .await?;
                same!(output.code.to_string(), code, "round {round}: {output:?}");
            }
            Ok(())
        },
    )
    .within(60 + 5 * rounds());
    t.add(
        "pods whose shim, sentry or gofer is killed at any moment leave nothing",
        async |c| {
            // Not the same moments each time: what was found is told with the round that found it.
            let mut random = u64::from(std::process::id());
            for round in 0..rounds() {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let victim = VICTIMS[usize::try_from(round % 4)?];
                let after = Duration::from_millis((random >> 33) % 1200);
                one(c, victim, after)
                    .await
                    .with_context(|| format!("round {round}, {victim:?} after {after:?}"))?;
            }
            Ok(())
        },
    )
    .within(60 + 10 * rounds());
}

/// A pod of two containers and an exec; meanwhile its victim is killed. Then all of it goes.
async fn one(c: &Ctx, victim: Victim, after: Duration) -> Result<()> {
    let first = sandbox(c);
    let pod = first.id.clone();
    let second = member(c, &pod).streams(["", "", ""]);
    let ids = [second.id.clone(), pod.clone()];
    let life = async {
        let _first = first.start().await?;
        let second = second.start().await?;
        let exec = second.exec(&["true"]).streams(["", "", ""]).start().await?;
        same!(exec.wait().await?, 0);
        anyhow::Ok(())
    };
    let murder = async {
        tokio::time::sleep(after).await;
        let pids = find(c, &pod, victim);
        pids.iter().copied().for_each(processes::kill);
        !pids.is_empty()
    };
    let (lived, killed) = tokio::join!(life, murder);
    if let Err(error) = &lived
        && format!("{error:#}").contains("failed to create TTRPC connection")
    {
        // containerd was not connected yet. It cleans up after a shim whose connection ends
        // (core/runtime/v2/shim_manager.go), and asks nobody to remove the socket of this one, whosever shim it is.
        std::fs::remove_file(leaks::socket_path(&c.daemon, &c.namespace, &pod)).ok();
    }
    if !killed {
        lived.context("nobody was killed")?;
    }
    let api = c.api()?;
    for id in &ids {
        end_task(&api, id).await?;
        c.eventually("the container can be deleted", async || {
            Ok(match api.delete_container(id).await {
                Ok(_) => true,
                Err(status) => status.code() == Code::NotFound,
            })
        })
        .await?;
        match api.remove_snapshot(id).await {
            Err(status) if status.code() != Code::NotFound => return Err(status).context("remove the snapshot"),
            _ => {}
        }
    }
    c.eventually("its processes are gone", async || Ok(all(c, &pod).is_empty()))
        .await?;
    let state = std::path::Path::new("/run/nucleus/gvisor")
        .join(&c.namespace)
        .join(&pod);
    c.eventually("its directory is gone", async || Ok(!state.exists()))
        .await?;
    ensure!(
        ids.iter().all(|id| !c.daemon.bundle(&c.namespace, id).exists()),
        "a bundle is left"
    );
    Ok(())
}

/// The pids of a pod's victim, as far as there is one at this moment.
fn find(c: &Ctx, pod: &str, victim: Victim) -> Vec<u32> {
    let name = match victim {
        Victim::Shim => "containerd-shim-nucleus-v2",
        Victim::Sentry => "runsc-sandbox",
        Victim::Gofer => "runsc-gofer",
        Victim::Nobody => return Vec::new(),
    };
    let found = all(c, pod).into_iter();
    let found = found.filter(|process| {
        let program = process.command.split(' ').next().unwrap_or_default();
        program.ends_with(name)
    });
    found.map(|process| process.pid).collect()
}

/// Every process of a pod: by the shim's arguments, and by the sandbox's directory in runsc's.
fn all(c: &Ctx, pod: &str) -> Vec<processes::Process> {
    let Some(supervisor) = rustix::process::getppid() else {
        return Vec::new();
    };
    let below = processes::descendants(supervisor.as_raw_nonzero().get().unsigned_abs());
    let shim = format!("-namespace {} -id {pod} ", c.namespace);
    let directory = format!("/{}/{pod} ", c.namespace);
    let ours = |process: &processes::Process| {
        let line = format!("{} ", process.command);
        line.contains(&shim) || (line.starts_with("runsc") && line.contains(&directory))
    };
    below
        .into_iter()
        .filter(|process| process.state != 'Z' && ours(process))
        .collect()
}
