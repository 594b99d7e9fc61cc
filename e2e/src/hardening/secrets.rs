//! Secrets: what a container is given of them, and what of them can be found outside it.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::canary::Canary;
use super::{attacked, shown};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::{annotated, handler};
use crate::{same, spec};

const DIFFERS: &str = "runc leaves secrets where kubelet has put them";

const MEMORY: &str = "secrets = 'memory'\n";

/// A Secret volume as kubelet makes it: the files are links into a directory that is exchanged at once.
pub fn secret_volume(c: &Ctx) -> Result<PathBuf> {
    let volume = c.directory.join("volumes/kubernetes.io~secret/keys");
    let version = volume.join("..2026_01");
    std::fs::create_dir_all(&version)?;
    std::fs::write(version.join("password"), "opensesame")?;
    symlink("..2026_01", volume.join("..data"))?;
    symlink("..data/password", volume.join("password"))?;
    Ok(volume)
}

pub fn mounted(spec: &mut Value, at: &str, source: &Path) {
    let source = source.display().to_string();
    spec::push(
        spec,
        "/mounts",
        spec::mount(at, "bind", &source, &["rbind", "rprivate", "ro"]),
    );
}

fn as_user(spec: &mut Value) {
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    spec["process"]["capabilities"] = json!({});
}

/// A Secret volume with links to a canary on the host, through which a container with a copy in memory does not get.
pub async fn links_that_lead_nowhere(c: &Ctx) -> Result<(Canary, PathBuf)> {
    let canary = Canary::plant(c)?;
    let volume = c.directory.join("volumes/kubernetes.io~secret/evil");
    std::fs::create_dir_all(&volume)?;
    symlink(canary.file(), volume.join("file"))?;
    symlink(&canary.directory, volume.join("directory"))?;
    let container = c
        .container()
        .options(handler(MEMORY))
        .spec(|spec| mounted(spec, "/keys", &volume));
    let output = container
        .sh("cat /keys/file /keys/directory/file; ls -R /keys")
        .output()
        .await?;
    canary.is_unread(&output)?;
    Ok((canary, volume))
}

pub fn register(t: &mut Registry) {
    t.add(
        "a Secret is in memory that is the container's own, for its user alone",
        async |c| {
            let volume = secret_volume(c)?;
            let container = c.container().waiting().options(handler(MEMORY)).spec(|spec| {
                mounted(spec, "/keys", &volume);
                as_user(spec);
            });
            let container = container.start().await?;
            let read =
                "cat /keys/password; stat -L -c ' %a %u %g' /keys /keys/password; grep ' /keys ' /proc/self/mountinfo";
            let output = container.exec(&["sh", "-c", read]).process(|process| {
                process["user"] = json!({"uid": 1000, "gid": 1000});
                process["capabilities"] = json!({});
            });
            let output = output.output().await?;
            ensure!(
                output.stdout.starts_with("opensesame 500 1000 1000\n 400 1000 1000\n"),
                "{output:?}"
            );
            let mount = output.stdout.lines().last().context("no mount")?;
            ensure!(
                mount.contains(" ro,nosuid,nodev,noexec,") && mount.contains("nucleus-secrets"),
                "{mount}"
            );
            ensure!(mount.contains("- ramfs ") || mount.contains("noswap"), "{mount}");
            // What changes outside later is not what the container has: it has a copy.
            std::fs::write(volume.join("password"), "changed")?;
            same!(container.sh("cat /keys/password").await?.stdout, "opensesame");
            let other = container.exec(&["cat", "/keys/password"]).process(|process| {
                process["user"] = json!({"uid": 1001, "gid": 1000});
                process["capabilities"] = json!({});
            });
            ensure!(other.output().await?.code != 0, "another user reads it");
            for attack in [
                "echo x > /keys/password",
                "rm /keys/password",
                "touch /keys/new",
                "sh /keys/password2",
            ] {
                ensure!(container.sh(attack).await?.code != 0, "{attack}");
                attacked(1);
            }
            let table = std::fs::read_to_string("/proc/self/mountinfo")?;
            ensure!(!table.contains("nucleus-secrets"), "the host sees it");
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "a volume or a file is kept in memory where the pod names it, also with mapped ids",
        async |c| {
            let directory = c.directory.join("token");
            std::fs::create_dir_all(&directory)?;
            let file = directory.join("token");
            std::fs::write(&file, "a token")?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            let named = json!({"nucleus.dev/secrets": "/run/token, /keys, /not/in/this/container"});
            for rootless in [false, true] {
                let container = annotated(c.container(), &named).waiting().spec(|spec| {
                    mounted(spec, "/run/token", &file);
                    mounted(spec, "/keys", &directory);
                });
                let container = if rootless {
                    container.rootless_root(c).await?
                } else {
                    container
                };
                let container = container.start().await?;
                let read = "cat /run/token /keys/token; stat -c ' %a %u' /run/token /keys/token /keys";
                same!(
                    container.sh(read).await?.stdout,
                    "a tokena token 400 0\n 400 0\n 500 0\n",
                    "rootless: {rootless}"
                );
                let table = container.sh("grep -c nucleus-secrets /proc/self/mountinfo").await?;
                same!(table.stdout, "2\n");
            }
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "a program in a volume that is kept in memory does not run, and one that is not does",
        async |c| {
            let volume = secret_volume(c)?;
            std::fs::copy(&c.tools.probe, volume.join("..data/program"))?;
            std::fs::set_permissions(volume.join("..data/program"), std::fs::Permissions::from_mode(0o755))?;
            let run = |options: &str| {
                let container = c
                    .container()
                    .sh("/keys/..data/program exit 7")
                    .options(handler(options));
                container.spec(|spec| mounted(spec, "/keys", &volume))
            };
            same!(run("").output().await?.code, 7, "without the policy it runs");
            shown(1);
            same!(run(MEMORY).output().await?.code, 126);
            attacked(1);
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "links of a volume that is copied lead nowhere outside, and what is too large is refused",
        async |c| {
            let (canary, volume) = links_that_lead_nowhere(c).await?;
            attacked(1);
            std::fs::write(volume.join("large"), vec![0; (8 << 20) + 1])?;
            let container = || {
                c.container()
                    .waiting()
                    .options(handler(MEMORY))
                    .spec(|spec| mounted(spec, "/keys", &volume))
            };
            refused(container().create().await)?.saying("more than 8388608 bytes")?;
            std::fs::remove_file(volume.join("large"))?;
            let fifo = volume.join("fifo");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &fifo,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )?;
            refused(container().create().await)?.saying("keeping /keys in memory")?;
            attacked(2);
            canary.is_untouched()
        },
    )
    .differs(DIFFERS);
}
