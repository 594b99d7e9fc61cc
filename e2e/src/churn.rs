//! The suite `churn`: many containers, one after another and beside each other, and shims that die.

use anyhow::{Context as _, Result};
use containerd_client::tonic::Code;
use futures_util::future::try_join_all;

use crate::context::{Ctx, end_task};
use crate::harness::Registry;
use crate::{processes, same};

const CONTAINERS: usize = 300;
/// How many lines of containers run beside each other.
const LINES: usize = 3;

pub fn register(registry: &mut Registry) {
    registry.subject("churn");
    registry
        .add(
            "three hundred containers come and go, every third with its shim killed, and nothing is left",
            async |c| {
                let lines = (0..LINES).map(|line| async move {
                    let mut ids = Vec::new();
                    for number in 0..CONTAINERS / LINES {
                        ids.push(
                            one(c, number % 3 == line)
                                .await
                                .with_context(|| format!("container {number} of line {line}"))?,
                        );
                    }
                    Ok::<_, anyhow::Error>(ids)
                });
                let ids = try_join_all(lines).await?.concat();
                same!(ids.len(), CONTAINERS);
                for id in &ids {
                    let events = c.events().of(id);
                    let exits = events
                        .iter()
                        .filter(|event| event.kind() == "exit" && event.process == *id)
                        .count();
                    same!(exits, 1, "{id}: {events:?}");
                }
                Ok(())
            },
        )
        .new_runc_differs("now and then it is told to end before it has published an exit, which nobody sees then")
        .within(900);
}

/// One container: started, exec'd into, ended by its shim's death or by a signal, deleted.
async fn one(c: &Ctx, crash: bool) -> Result<String> {
    let container = c
        .container()
        .waiting()
        .streams(["", "", ""])
        .start()
        .await
        .context("start")?;
    let exec = container
        .exec(&["true"])
        .streams(["", "", ""])
        .start()
        .await
        .context("exec")?;
    same!(exec.wait().await?, 0);
    let id = container.id.clone();
    if crash {
        let shim = processes::shim_of(container.pid.get()).context("no shim")?;
        processes::kill(shim);
    } else {
        container.kill(9).await?;
        same!(container.wait().await?, 137);
        container.delete().await?;
    }
    c.events().wait_for(&id, "exit", |event| event.process == id).await?;
    let api = c.api()?;
    end_task(&api, &id).await?;
    c.eventually("the container can be deleted", async || {
        Ok(match api.delete_container(&id).await {
            Ok(_) => true,
            Err(status) => status.code() == Code::NotFound,
        })
    })
    .await?;
    api.remove_snapshot(&id).await.context("remove the snapshot")?;
    Ok(id)
}
