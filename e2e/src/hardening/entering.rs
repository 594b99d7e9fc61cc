//! Whoever enters a container: its program, its descriptors, its working directory, its memory (CVE-2016-9962,
//! 2019-5736, 2024-21626).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use serde_json::Value;

use super::canary::{Canary, root};
use super::{attacked, shown};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::image::digest;

/// Every binary of the runtime under test that a container could be after.
pub fn runtime_s_binaries(c: &Ctx) -> Vec<PathBuf> {
    vec![
        c.tools.shim.join("containerd-shim-nucleus-v2"),
        c.tools.runc.join("runc"),
    ]
}

pub fn digests(paths: &[PathBuf]) -> Result<Vec<String>> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    paths
        .iter()
        .map(|path| read(path).map(|bytes| digest(&bytes)))
        .collect()
}

/// An image with programs that are the runtime itself, once the runtime executes them.
fn self_executing_root(c: &Ctx) -> Result<PathBuf> {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let root = root(c, "root")?;
    let script = root.join("bin/script");
    std::fs::write(&script, "#!/proc/self/exe\n")?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    symlink("/proc/self/exe", root.join("bin/link"))?;
    Ok(root)
}

fn number(facts: &Value, field: &str) -> u64 {
    facts[field].as_u64().unwrap_or(u64::MAX)
}

/// Runs `probe` with `verb` against programs named `target`, while `execs` processes enter the container.
async fn while_entering(c: &Ctx, root: &Path, verb: &str, programs: &[&str], execs: usize) -> Result<Value> {
    let target = c.by_runtime("runc", "nucleus");
    let container = c
        .container()
        .args(&["probe", verb, "4000", target])
        .root_at(root)
        .start()
        .await?;
    for round in 0..execs {
        // Some of them are no programs at all: how they end is all the same.
        container
            .exec(&[programs[round % programs.len()]])
            .streams(["", "", ""])
            .output()
            .await
            .ok();
    }
    let facts = container.output().await?.json()?;
    container.delete().await?;
    Ok(facts)
}

pub fn register(t: &mut Registry) {
    t.add(
        "the runtime's binary cannot be overwritten through /proc/self/exe",
        async |c| {
            let binaries = runtime_s_binaries(c);
            let before = digests(&binaries)?;
            let root = self_executing_root(c)?;
            for program in ["/bin/script", "/bin/link"] {
                // As the entrypoint: it may fail, or be the runtime's own help.
                if let Ok(container) = c.container().args(&[program]).root_at(&root).start().await {
                    container.output().await?;
                    container.delete().await?;
                }
                attacked(1);
            }
            let facts = while_entering(c, &root, "overwrite", &["/bin/script", "/bin/link", "/bin/true"], 60).await?;
            attacked(60);
            ensure!(
                number(&facts, "written") == 0,
                "the runtime's binary was opened for writing: {facts}"
            );
            ensure!(digests(&binaries)? == before, "the runtime's binary was changed");
            // The same attack on a program that is not protected: one of the container's own.
            let script = "cp /bin/probe /tmp/victim; (while :; do /tmp/victim exit 0; done) 2>/dev/null & \
                      probe overwrite 30000 victim; kill $!";
            let facts = c.container().sh(script).output().await?;
            let facts = facts.json()?;
            ensure!(
                number(&facts, "written") > 0,
                "the attack does not work even where it should: {facts}"
            );
            shown(1);
            Ok(())
        },
    )
    .within(90);

    t.add("who enters shows neither its memory nor its descriptors", async |c| {
        let root = root(c, "root")?;
        let facts = while_entering(c, &root, "watch", &["/bin/true"], 100).await?;
        attacked(100);
        for found in ["memory", "environ", "descriptors"] {
            ensure!(number(&facts, found) == 0, "{found} of an entering process: {facts}");
        }
        // A process of the container's own shows both.
        let output = c
            .container()
            .sh("probe wait & probe watch 30000 probe; kill $!")
            .output()
            .await?;
        let facts = output.json()?;
        ensure!(
            number(&facts, "memory") > 0 && number(&facts, "descriptors") > 0,
            "{facts}"
        );
        shown(1);
        Ok(())
    })
    .within(60);

    t.add(
        "no working directory is a descriptor of the runtime's, for init",
        async |c| {
            let canary = Canary::plant(c)?;
            let root = descriptor_root(c)?;
            let run = async |numbers: Vec<u32>| {
                for number in numbers {
                    for cwd in [format!("/proc/self/fd/{number}"), format!("/links/{number}")] {
                        let container = c.container().sh(&look_around(&canary)).root_at(&root);
                        let container = container.spec(|spec| spec["process"]["cwd"] = cwd.clone().into());
                        if let Ok(container) = container.create().await {
                            if container.start().await.is_ok() {
                                let output = container.output().await?;
                                canary.is_unread(&output).context(cwd)?;
                            }
                            container.kill(9).await.ok();
                            container.delete().await.ok();
                        }
                        attacked(1);
                    }
                }
                Ok::<_, anyhow::Error>(())
            };
            let outcomes = join_all([run((3..34).collect()), run((34..=64).collect())]).await;
            outcomes.into_iter().collect::<Result<Vec<()>>>()?;
            canary.is_untouched()
        },
    )
    .within(180);

    t.add(
        "no working directory is a descriptor of the runtime's, for an exec",
        async |c| {
            let canary = Canary::plant(c)?;
            let root = descriptor_root(c)?;
            let container = c.container().waiting().root_at(&root).start().await?;
            for number in 3..=64 {
                for cwd in [format!("/proc/self/fd/{number}"), format!("/links/{number}")] {
                    let script = look_around(&canary);
                    let exec = container.exec(&["sh", "-c", &script]);
                    let exec = exec.process(|process| process["cwd"] = cwd.clone().into());
                    if let Ok(output) = exec.output().await {
                        canary.is_unread(&output).context(cwd)?;
                    }
                    attacked(1);
                }
            }
            canary.is_untouched()
        },
    )
    .within(90);
}

/// A root with links to every descriptor.
fn descriptor_root(c: &Ctx) -> Result<PathBuf> {
    let root = root(c, "root")?;
    std::fs::create_dir(root.join("links"))?;
    for number in 3..=64 {
        std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), root.join(format!("links/{number}")))?;
    }
    Ok(root)
}

/// Reads the canary from wherever one is, and writes to it.
fn look_around(canary: &Canary) -> String {
    let path = canary.file().display().to_string();
    let up = "../".repeat(8);
    format!("pwd; for d in . {up}; do cat $d{path}; echo changed > $d{path}; done; ls {up}proc/1/root; true")
}
