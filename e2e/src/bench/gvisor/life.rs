//! Times of one pod's life.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::context::Ctx;

use super::{Figures, Row, Subject, first, member, run};

/// The quiet before an operation.
const PAUSE: Duration = Duration::from_millis(30);

const fn row(key: &'static str, title: &'static str) -> Row {
    Row { key, title, unit: "ms" }
}

const CREATE_FIRST: Row = row("create_start_first", "pod: create + start");
const CREATE_MEMBER: Row = row("create_start_member", "container: create + start");
const EXEC: Row = row("exec", "exec of /bin/true");
const DELETE_MEMBER: Row = row("delete_member", "container: delete");
const DELETE_FIRST: Row = row("delete_first", "pod: delete");

/// One pod from its making to its end.
pub(super) async fn measure(ctx: &Ctx, subject: Subject, figures: &mut Figures) -> Result<()> {
    let prepared = first(ctx, subject).prepare().await?;
    let (begun, pod) = (quiet().await, prepared.create().await?);
    pod.start().await?;
    figures.add(CREATE_FIRST, subject, since(begun));

    let prepared = member(ctx, subject, &pod.id).prepare().await?;
    let (begun, container) = (quiet().await, prepared.create().await?);
    container.start().await?;
    figures.add(CREATE_MEMBER, subject, since(begun));

    let begun = quiet().await;
    run(&container, &["/bin/true"]).await?;
    figures.add(EXEC, subject, since(begun));

    for (row, container) in [(DELETE_MEMBER, &container), (DELETE_FIRST, &pod)] {
        container.kill(9).await?;
        container.wait().await?;
        let begun = quiet().await;
        container.delete().await?;
        figures.add(row, subject, since(begun));
    }
    Ok(())
}

async fn quiet() -> Instant {
    tokio::time::sleep(PAUSE).await;
    Instant::now()
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
