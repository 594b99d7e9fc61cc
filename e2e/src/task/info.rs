//! What the shim tells about itself.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::Message;
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::harness::Registry;
use crate::same;

async fn info(c: &Ctx) -> Result<RuntimeInfo> {
    let mut command = c.daemon.command(c.runtime.binary());
    let output = command
        .arg("-info")
        .stdin(Stdio::null())
        .output()
        .await
        .context("run the shim with -info")?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    RuntimeInfo::parse_from_bytes(&output.stdout).context("decode what -info printed")
}

/// What the shim's `-info` says of what it can do.
pub async fn features(c: &Ctx) -> Result<Value> {
    let info = info(c).await?;
    let any = info.features.into_option().context("no features")?;
    anyhow::ensure!(
        any.type_url
            .ends_with("opencontainers/runtime-spec/1/features/Features"),
        "{}",
        any.type_url
    );
    serde_json::from_slice(&any.value).context("features that are no JSON")
}

const OLD: &str = "it does not have -info yet";

pub fn register(t: &mut Registry) {
    t.add("the shim tells its name and version", async |c| {
        let info = info(c).await?;
        same!(info.name, c.runtime.name());
        anyhow::ensure!(!info.version.get_or_default().version.is_empty(), "{info:?}");
        Ok(())
    })
    .old_runc_differs(OLD);
    t.add("the features tell the namespaces that can be made", async |c| {
        let features = features(c).await?;
        for name in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
            anyhow::ensure!(
                features["linux"]["namespaces"]
                    .as_array()
                    .is_some_and(|list| list.contains(&json!(name))),
                "no {name}"
            );
        }
        Ok(())
    })
    .old_runc_differs(OLD);
    t.add("the features tell the capabilities that are known", async |c| {
        let features = features(c).await?;
        let known = features["linux"]["capabilities"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        anyhow::ensure!(
            known.contains(&json!("CAP_SYS_ADMIN")) && known.len() >= 38,
            "{known:?}"
        );
        Ok(())
    })
    .old_runc_differs(OLD);
    t.add(
        "the features tell the mount options, recursive read-only among them",
        async |c| {
            let features = features(c).await?;
            for option in ["ro", "rbind", "rro", "rslave", "nosuid"] {
                anyhow::ensure!(
                    features["mountOptions"]
                        .as_array()
                        .is_some_and(|list| list.contains(&json!(option))),
                    "no {option}"
                );
            }
            Ok(())
        },
    )
    .old_runc_differs(OLD);
    t.add("the features tell the kinds of hooks", async |c| {
        let features = features(c).await?;
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ] {
            anyhow::ensure!(
                features["hooks"]
                    .as_array()
                    .is_some_and(|list| list.contains(&json!(kind))),
                "no {kind}"
            );
        }
        Ok(())
    })
    .old_runc_differs(OLD);
    t.add("the features tell mounts with mapped ids", async |c| {
        same!(features(c).await?["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        Ok(())
    })
    .differs("runc 1.1 does not know them yet");
    t.add("the version flag tells a version and ends", async |c| {
        let output = c.daemon.command(c.runtime.binary()).arg("-v").output().await?;
        anyhow::ensure!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
        Ok(())
    });
    t.add("containerd itself reads the shim's features", async |c| {
        let runtime = c.runtime.name();
        let output = c
            .ctr(&["plugins", "inspect-runtime", &format!("--runtime={runtime}")])
            .await?;
        let info: Value = output.json()?;
        anyhow::ensure!(info["Features"]["linux"]["namespaces"].is_array(), "{info}");
        Ok(())
    })
    .since_containerd_2("its ctr cannot ask");
    t.add("an unknown flag is an error", async |c| {
        let output = c
            .daemon
            .command(c.runtime.binary())
            .arg("-no-such-flag")
            .stdin(Stdio::null())
            .output()
            .await?;
        same!(output.status.success(), false);
        Ok(())
    });
}
