//! Places in the tree of cgroups where no container can be, or can be no more.

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::node;

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    // systemd takes limits for a scope whose cgroup is gone.
    if !node::has_systemd_driver() {
        t.add(
            "a cgroup that somebody took away is named, and its container is deleted",
            async |c| {
                let container = c.container().waiting().start().await?;
                let directory = container.cgroup("");
                std::fs::write("/sys/fs/cgroup/cgroup.procs", container.pid.get().to_string())?;
                std::fs::remove_dir(&directory).with_context(|| format!("remove {}", directory.display()))?;
                let refusal = refused(container.update(&json!({"pids": {"limit": 7}})).await)?;
                refusal.saying(&container.id)?;
                container.kill(9).await?;
                container.wait().await?;
                container.delete().await?;
                Ok(())
            },
        )
        .differs("runc cannot find the processes then");
    }
    t.add("a threaded parent is refused, and nothing is left in it", async |c| {
        let top = format!("{}-threaded", c.namespace);
        let parent = std::path::Path::new("/sys/fs/cgroup").join(&top).join("parent");
        std::fs::create_dir_all(&parent)?;
        std::fs::write(parent.join("cgroup.type"), "threaded").context("make a threaded cgroup")?;
        let path = format!("/{top}/parent/c");
        let container = c.container().spec(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let outcome = container.options(prost_types::Any::default()).create().await;
        let left = parent.join("c").exists();
        std::fs::remove_dir(&parent)?;
        std::fs::remove_dir(parent.parent().context("no parent")?)?;
        refused(outcome)?.saying("cgroup.type")?;
        ensure!(!left, "the container's cgroup is still there");
        Ok(())
    })
    .differs("runc takes a threaded cgroup where no limit is asked for");
    t.add("a parent that is frozen is refused", async |c| {
        let parent = format!("/sys/fs/cgroup/{}-frozen", c.namespace);
        std::fs::create_dir(&parent)?;
        std::fs::write(format!("{parent}/cgroup.freeze"), "1")?;
        let path = format!("/{}-frozen/c", c.namespace);
        let container = c.container().spec(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let outcome = container.options(prost_types::Any::default()).create().await;
        std::fs::remove_dir(&parent)?;
        refused(outcome)?.saying("cgroup.events")?;
        Ok(())
    })
    .differs("runc waits there for ever");
    t.add(
        "a limit whose controller was not handed down is refused by both their names",
        async |c| {
            let parent = format!("/sys/fs/cgroup/{}-inhabited", c.namespace);
            std::fs::create_dir(&parent)?;
            // A cgroup with processes hands no controllers down (cgroups(7)).
            let mut inhabitant = tokio::process::Command::new("sleep");
            let mut inhabitant = inhabitant.arg("600").kill_on_drop(true).spawn().context("run sleep")?;
            let pid = inhabitant.id().context("sleep has no pid")?;
            std::fs::write(format!("{parent}/cgroup.procs"), pid.to_string())?;
            let path = format!("/{}-inhabited/c", c.namespace);
            let container = c.container().spec(|spec| {
                spec["linux"]["cgroupsPath"] = json!(path);
                spec["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB});
            });
            let outcome = container.options(prost_types::Any::default()).create().await;
            let left = std::path::Path::new(&parent).join("c").exists();
            inhabitant.kill().await.context("end sleep")?;
            std::fs::remove_dir(&parent).with_context(|| format!("remove {parent}"))?;
            let refusal = refused(outcome)?;
            refusal
                .saying("resources.memory.limit")?
                .saying("the controller memory is not enabled")?;
            ensure!(!left, "the container's cgroup is still there");
            Ok(())
        },
    )
    .differs("runc says that a file is not there");
}
