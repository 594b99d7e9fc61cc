//! Termination messages, as kubelet has them: a file of the host's, mounted at a path of the container's.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::context::Runtime;
use crate::same;

use super::pods::{Cri, FOREVER, Pod, plain};

const PATH: &str = "/dev/termination-log";

/// Adds the file that a container's last words go to, empty and for everybody, as kubelet makes it.
fn with_log(cri: &Cri<'_>, name: &str, config: &mut Value) -> Result<PathBuf> {
    let file = cri.directory.join(format!("termination-{name}"));
    std::fs::write(&file, "").with_context(|| format!("make {}", file.display()))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("chmod {}", file.display()))?;
    config["mounts"] = json!([{"host_path": file, "container_path": PATH}]);
    Ok(file)
}

/// How a container ends, and with what.
struct End {
    name: &'static str,
    script: &'static str,
    change: fn(&mut Value),
    /// Ended from outside, once it has said its words.
    stop: bool,
    code: i64,
    reason: &'static str,
}

/// Who takes too much is the last: a sentry has one limit for its pod's containers, and ends with them all.
const ENDS: [End; 5] = [
    End {
        name: "done",
        script: "true",
        change: plain,
        stop: false,
        code: 0,
        reason: "Completed",
    },
    End {
        name: "failed",
        script: "exit 3",
        change: plain,
        stop: false,
        code: 3,
        reason: "Error",
    },
    End {
        name: "nobody",
        script: "exit 4",
        change: |config| {
            config["linux"]["security_context"] =
                json!({"run_as_user": {"value": 1000}, "readonly_rootfs": true, "no_new_privs": true});
        },
        stop: false,
        code: 4,
        reason: "Error",
    },
    End {
        name: "killed",
        script: "exec sleep 100000",
        change: plain,
        stop: true,
        code: 137,
        reason: "Error",
    },
    End {
        name: "greedy",
        script: "exec probe memory 200",
        change: |config| config["linux"]["resources"] = json!({"memory_limit_in_bytes": 32 << 20}),
        stop: false,
        code: 137,
        reason: "OOMKilled",
    },
];

pub async fn messages(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    apart(cri, &pod).await?;
    for end in ENDS {
        let words = format!("{} said its last words\n", end.name);
        let script = format!(
            "grep -q ' {PATH} ' /proc/mounts || exit 9; echo '{} said its last words' > {PATH}; {}",
            end.name, end.script
        );
        let mut file = Ok(PathBuf::new());
        let container = pod
            .start(&["sh", "-c", &script], |config| {
                (end.change)(config);
                file = with_log(cri, end.name, config);
            })
            .await?;
        let file = file?;
        let read = || std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()));
        if end.stop {
            cri.eventually("it has spoken", async || Ok(read()? == words)).await?;
            container.stop(0).await?;
        }
        let status = container.ended().await?;
        same!(status["exitCode"], json!(end.code), "{}", end.name);
        // Of runc's shim containerd may hear that memory was wanting when it has told of the end.
        if cri.runtime != Runtime::Runc || end.reason != "OOMKilled" {
            same!(status["reason"], json!(end.reason), "{}", end.name);
        }
        same!(read()?, words);
        container.remove().await?;
        same!(read()?, words, "after its removal");
    }
    pod.remove().await
}

/// Two containers of a pod have a file each, and neither can put another thing in its place.
async fn apart(cri: &Cri<'_>, pod: &Pod<'_, '_>) -> Result<()> {
    let mut files = Vec::new();
    let mut containers = Vec::new();
    for name in ["one", "other"] {
        let change = |config: &mut Value| files.push(with_log(cri, name, config));
        containers.push(pod.start(&FOREVER, change).await?);
    }
    containers[0].sh(&format!("echo one >> {PATH}")).await?.ok()?;
    let removed = containers[0].sh(&format!("rm {PATH}")).await?;
    ensure!(removed.stderr.contains("busy"), "{removed:?}");
    same!(containers[1].sh(&format!("cat {PATH}")).await?.ok()?, "");
    for container in containers {
        container.stop(0).await?;
        container.remove().await?;
    }
    for (file, words) in files.into_iter().zip(["one\n", ""]) {
        same!(std::fs::read_to_string(file?).context("read what it said")?, words);
    }
    Ok(())
}
