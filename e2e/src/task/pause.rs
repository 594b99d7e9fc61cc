//! Pause and resume.

use containerd_client::types::v1::Status;

use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

pub fn register(t: &mut Registry) {
    t.add("a paused container is frozen and goes on when resumed", async |c| {
        let container = c
            .container()
            .sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
            .start()
            .await?;
        container.stdout.wait_for("3\n").await?;
        container.pause().await?;
        same!(container.status().await?, Status::Paused);
        same!(container.cgroup_value("freezer", "freezer.state")?, "FROZEN");
        container.resume().await?;
        same!(container.status().await?, Status::Running);
        let now = container.stdout.text().len();
        c.eventually("it writes again", async || Ok(container.stdout.text().len() > now))
            .await
    });
    t.add("an exec of a paused container is paused too", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "wait"]).start().await?;
        container.pause().await?;
        same!(exec.status().await?, Status::Paused);
        container.resume().await?;
        same!(exec.status().await?, Status::Running);
        Ok(())
    });
    t.add("pausing twice is refused and leaves it paused", async |c| {
        let container = c.container().waiting().start().await?;
        container.pause().await?;
        refused(container.pause().await)?;
        same!(container.status().await?, Status::Paused);
        Ok(())
    });
    t.add("resuming what runs is refused", async |c| {
        let container = c.container().waiting().start().await?;
        refused(container.resume().await)?;
        same!(container.status().await?, Status::Running);
        Ok(())
    });
    t.add("pausing a created task is refused", async |c| {
        let container = c.container().waiting().create().await?;
        refused(container.pause().await)?;
        same!(container.status().await?, Status::Created);
        Ok(())
    });
    t.add("pausing a stopped task is refused", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        refused(container.pause().await)?;
        refused(container.resume().await)?;
        same!(container.status().await?, Status::Stopped);
        Ok(())
    });
    t.add(
        "an exec cannot be added to or started in a paused container",
        async |c| {
            let container = c.container().waiting().start().await?;
            let before = container.exec(&["true"]).create().await?;
            container.pause().await?;
            match container.exec(&["true"]).create().await {
                Ok(exec) => refused(exec.start().await)?,
                Err(error) => refused::<(), _>(Err(error))?,
            };
            refused(before.start().await)?;
            container.resume().await?;
            same!(container.sh("echo awake").await?.ok()?, "awake\n");
            Ok(())
        },
    );
    t.add("deleting a paused task is refused", async |c| {
        let container = c.container().waiting().start().await?;
        container.pause().await?;
        refused(container.delete().await)?;
        same!(container.status().await?, Status::Paused);
        Ok(())
    });
    t.add("SIGKILL ends a paused container", async |c| {
        let container = c.container().waiting().start().await?;
        container.pause().await?;
        container.kill(9).await?;
        same!(container.wait().await?, 137);
        same!(container.status().await?, Status::Stopped);
        Ok(())
    });
    t.add("pause holds every process and thread of the container", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container
            .exec(&["sh", "-c", "while :; do echo x; sleep 0.01; done"])
            .start()
            .await?;
        exec.stdout.wait_for("x").await?;
        container.pause().await?;
        // What was in the pipe when it froze arrives; then nothing more.
        let mut last = usize::MAX;
        c.eventually("it is silent", async || {
            let now = exec.stdout.text().len();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Ok(std::mem::replace(&mut last, now) == now)
        })
        .await?;
        container.resume().await
    });
    t.add("a container can be paused and resumed many times", async |c| {
        let container = c.container().waiting().start().await?;
        for _ in 0..10 {
            container.pause().await?;
            container.resume().await?;
        }
        same!(container.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    });
}
