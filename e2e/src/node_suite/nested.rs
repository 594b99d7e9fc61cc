//! Containers that make cgroups of their own, below the one that is theirs.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::container::Container;
use crate::harness::Registry;
use crate::spec::{mount, push};
use crate::{processes, same};

/// A cgroup namespace, and cgroups that can be written to.
fn writable(spec: &mut Value) {
    push(spec, "/linux/namespaces", json!({"type": "cgroup"}));
    let options = ["nosuid", "noexec", "nodev", "relatime", "rw"];
    push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
}

/// Hands a controller down, for which it has to leave its own cgroup.
const HAND_DOWN: &str = "\
set -e
mkdir /sys/fs/cgroup/below
echo $$ > /sys/fs/cgroup/below/cgroup.procs
echo +pids > /sys/fs/cgroup/cgroup.subtree_control
echo ready
exec probe wait";

/// A container's own cgroup takes no processes any more then, and an exec has to go somewhere.
async fn exec_comes_in(container: Container<'_>) -> Result<()> {
    container.stdout.wait_for("ready").await?;
    let output = container.sh("cat /proc/self/cgroup").await?;
    same!(output.ok()?, "0::/below\n", "{output:?}");
    let exec = container.exec(&["probe", "wait"]).start().await?;
    let own = processes::text(exec.pid.get(), "cgroup");
    ensure!(
        own.trim_end().ends_with("/below") && own.contains(&container.id),
        "{own}"
    );
    exec.kill(9).await?;
    exec.wait().await?;
    let directory = container.cgroup("");
    container.kill(9).await?;
    container.wait().await?;
    container.delete().await?;
    ensure!(!directory.exists(), "{} is still there", directory.display());
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add(
        "an exec comes into a container that hands controllers down",
        async |c| exec_comes_in(c.container().sh(HAND_DOWN).spec(writable).start().await?).await,
    );
    t.add(
        "an exec comes into one with a user namespace that hands controllers down",
        async |c| {
            let container = c.container().sh(HAND_DOWN).spec(writable);
            exec_comes_in(container.rootless_root(c).await?.start().await?).await
        },
    )
    .differs("runc 1.1 gives a cgroup away on systemd's driver alone");
}
