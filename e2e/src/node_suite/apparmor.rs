//! AppArmor profiles of init and of execs.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

const PROFILE: &str = "\
profile nucleus-test flags=(attach_disconnected) {
  file,
  capability,
  network,
  signal,
  unix,
  mount,
  umount,
  deny /usr/data/seed r,
}
";

/// Loads the profile, as an administrator would.
async fn load_profile(directory: &std::path::Path) -> Result<()> {
    let file = directory.join("profile");
    std::fs::write(&file, PROFILE)?;
    let output = Command::new("apparmor_parser").arg("-Kr").arg(&file).output().await;
    let output = output.context("run apparmor_parser")?;
    ensure!(
        output.status.success(),
        "apparmor_parser: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

pub fn register(t: &mut Registry) {
    const LOOK: &str = "cat /proc/self/attr/apparmor/current; cat /usr/data/seed";
    t.add("init and execs run under the AppArmor profile of the spec", async |c| {
        load_profile(&c.directory).await?;
        // The canary can be read where the profile is not.
        let free = c.container().sh(LOOK).output().await?;
        same!(free.ok()?, "unconfined\nfrom the image\n");
        let container = c.container().sh(LOOK);
        let held = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .output()
            .await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        ensure!(held.stderr.contains("ermission denied"), "{held:?}");
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .start()
            .await?;
        // As Kubernetes' clients do, an exec names the profile of its container.
        let exec = container.exec(&["sh", "-c", LOOK]);
        let exec = exec.process(|process| process["apparmorProfile"] = json!("nucleus-test"));
        let held = exec.output().await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        ensure!(held.stderr.contains("ermission denied"), "{held:?}");
        Ok(())
    });
    t.add("an exec that names no AppArmor profile runs under init's", async |c| {
        load_profile(&c.directory).await?;
        let container = c.container().waiting();
        let container = container
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-test"))
            .start()
            .await?;
        let held = container.sh(LOOK).await?;
        same!(held.stdout, "nucleus-test (enforce)\n", "{held:?}");
        Ok(())
    })
    .differs("runc 1.1 runs such an exec unconfined");
    t.add("a profile that is not loaded starts nothing", async |c| {
        let container = c
            .container()
            .spec(|spec| spec["process"]["apparmorProfile"] = json!("nucleus-missing"));
        let refusal = refused(container.start().await)?;
        if c.is_nucleus() {
            refusal.saying("nucleus-missing")?;
        }
        Ok(())
    });
    t.add("a hook is not under the container's profile", async |c| {
        load_profile(&c.directory).await?;
        let container = c.container().sh("cat /tmp/hook").spec(|spec| {
            spec["process"]["apparmorProfile"] = json!("nucleus-test");
            let script = "cat /proc/self/attr/apparmor/current > /tmp/hook";
            spec["hooks"] = json!({"startContainer": [{"path": "/bin/busybox", "args": ["sh", "-c", script]}]});
        });
        same!(container.output().await?.ok()?, "unconfined\n");
        Ok(())
    })
    .differs("runc labels init before its startContainer hooks");
}
