//! Volumes with a digest: what was changed in one does not run, and what is changed later does not arrive.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::canary::Canary;
use super::{attacked, shown};
use crate::container::Builder;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::annotated;
use crate::{same, spec};

const DIFFERS: &str = "runc does not look into volumes";

/// A volume as kubelet makes it of a ConfigMap: links to files in a directory that is exchanged at once.
fn config_map(c: &Ctx, name: &str) -> Result<PathBuf> {
    let volume = c.directory.join("pods/uid/volumes/kubernetes.io~configmap").join(name);
    let version = volume.join("..2026_01");
    std::fs::create_dir_all(&version)?;
    std::fs::write(version.join("run"), "#!/bin/sh\necho as it was\n")?;
    std::fs::set_permissions(version.join("run"), std::fs::Permissions::from_mode(0o755))?;
    symlink("..2026_01", volume.join("..data"))?;
    symlink("..data/run", volume.join("run"))?;
    Ok(volume)
}

/// What `nucleus digest` says.
fn digest(c: &Ctx, path: &Path) -> Result<String> {
    let output = std::process::Command::new(&c.tools.cli)
        .arg("digest")
        .arg(path)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn mounted(spec: &mut Value, at: &str, source: &Path, option: &str) {
    let source = source.display().to_string();
    spec::push(
        spec,
        "/mounts",
        spec::mount(at, "bind", &source, &["rbind", "rprivate", option]),
    );
}

fn demanding<'a>(c: &'a Ctx, annotations: &Value, at: &str, source: &Path) -> Builder<'a> {
    annotated(c.container().waiting(), annotations).spec(|spec| mounted(spec, at, source, "ro"))
}

async fn compared(c: &Ctx) -> Result<()> {
    let volume = config_map(c, "app")?;
    let wanted = json!({"nucleus.dev/volume-digest.app": digest(c, &volume)?});
    let container = demanding(c, &wanted, "/app", &volume).start().await?;
    same!(container.sh("/app/run").await?.stdout, "as it was\n");
    let table = container.sh("grep ' /app ' /proc/self/mountinfo").await?.stdout;
    ensure!(table.contains(" ro,") && table.contains("nucleus-volume"), "{table}");
    ensure!(
        !std::fs::read_to_string("/proc/self/mountinfo")?.contains("nucleus-volume"),
        "the host sees it"
    );
    // Whoever can write to the volume on the node, later: the container's copy is what it was.
    let changed = volume.join("..data/run");
    let unprotected = c
        .container()
        .waiting()
        .spec(|spec| mounted(spec, "/app", &volume, "ro"))
        .start()
        .await?;
    std::fs::write(&changed, "#!/bin/sh\necho changed\n")?;
    same!(
        unprotected.sh("/app/run").await?.stdout,
        "changed\n",
        "without a digest"
    );
    shown(1);
    same!(container.sh("/app/run").await?.stdout, "as it was\n");
    attacked(1);
    for attack in [
        "echo x > /app/run",
        "rm /app/run",
        "touch /app/new",
        "mount -o remount,rw /app",
    ] {
        ensure!(container.sh(attack).await?.code != 0, "{attack}");
        attacked(1);
    }
    // And the next container does not start.
    let error = refused(demanding(c, &wanted, "/app", &volume).create().await)?;
    error.saying("volume_digest: /app has sha256:")?.saying("is demanded")?;
    attacked(1);
    // A mode is part of it: a script that may be executed is not one that may not.
    std::fs::write(&changed, "#!/bin/sh\necho as it was\n")?;
    std::fs::set_permissions(&changed, std::fs::Permissions::from_mode(0o644))?;
    refused(demanding(c, &wanted, "/app", &volume).create().await)?.saying("volume_digest")?;
    attacked(1);
    // Written anew by kubelet, the same files are the same volume.
    std::fs::set_permissions(&changed, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(volume.join("..2026_01"), volume.join("..2027_02"))?;
    std::fs::remove_file(volume.join("..data"))?;
    symlink("..2027_02", volume.join("..data"))?;
    let container = demanding(c, &wanted, "/app", &volume).start().await?;
    same!(
        container.sh("/app/run; ls -a /app").await?.stdout,
        "as it was\n.\n..\nrun\n"
    );
    Ok(())
}

async fn named(c: &Ctx) -> Result<()> {
    let volume = config_map(c, "app")?;
    config_map(c, "other")?;
    let digest = digest(c, &volume)?;
    let zeros = format!("sha256:{}", "0".repeat(64));
    // A container of the pod's that has another of its volumes needs nothing.
    let other = json!({"nucleus.dev/volume-digest.other": zeros});
    demanding(c, &other, "/app", &volume).start().await?;
    let missing = json!({"nucleus.dev/volume-digest.ap": digest});
    let error = refused(demanding(c, &missing, "/app", &volume).create().await)?;
    error.saying("the pod has no volume \"ap\"")?.saying("volume_digest")?;
    let wrong = json!({"nucleus.dev/volume-digest.app": "sha256:abc"});
    let error = refused(demanding(c, &wrong, "/app", &volume).create().await)?;
    error
        .saying("annotation nucleus.dev/volume-digest.app")?
        .saying("64 hex digits")?;
    let wanted = json!({"nucleus.dev/volume-digest.app": digest});
    let writable = annotated(c.container().waiting(), &wanted).spec(|spec| mounted(spec, "/app", &volume, "rw"));
    refused(writable.create().await)?.saying("/app is mounted writable")?;
    let part = c.directory.join("pods/uid/volume-subpaths/app/web/0");
    std::fs::create_dir_all(part.parent().context("no parent")?)?;
    std::fs::write(&part, "a part\n")?;
    let error = refused(demanding(c, &wanted, "/part", &part).create().await)?;
    error.saying("only a part of the volume \"app\"")?;
    attacked(4);
    Ok(())
}

async fn by_path(c: &Ctx) -> Result<()> {
    // Volumes that kubelet has no directory of, single files among them; in a user namespace too.
    let directory = c.directory.join("models");
    std::fs::create_dir_all(directory.join("deep"))?;
    std::fs::write(directory.join("deep/model"), vec![7; 100_000])?;
    let file = c.directory.join("file");
    std::fs::write(&file, "one file\n")?;
    let wanted = format!(
        "/models={}, /etc/one={}, /elsewhere={}",
        digest(c, &directory)?,
        digest(c, &file)?,
        digest(c, &file)?
    );
    let wanted = json!({"nucleus.dev/volume_digest": wanted});
    for rootless in [false, true] {
        let container =
            demanding(c, &wanted, "/models", &directory).spec(|spec| mounted(spec, "/etc/one", &file, "ro"));
        let container = if rootless {
            container.rootless_root(c).await?
        } else {
            container
        };
        let container = container.start().await?;
        let read = "wc -c < /models/deep/model; cat /etc/one; grep -c nucleus-volume /proc/self/mountinfo";
        same!(
            container.sh(read).await?.stdout,
            "100000\none file\n2\n",
            "rootless: {rootless}"
        );
        std::fs::write(&file, "another file\n")?;
        same!(container.sh("cat /etc/one").await?.stdout, "one file\n");
        refused(demanding(c, &wanted, "/etc/one", &file).create().await)?.saying("volume_digest: /etc/one has")?;
        std::fs::write(&file, "one file\n")?;
        attacked(2);
    }
    Ok(())
}

async fn bounded(c: &Ctx) -> Result<()> {
    let canary = Canary::plant(c)?;
    let volume = config_map(c, "evil")?;
    // What leads out of the volume is a link, and is one in the copy.
    let inside = volume.join("..data");
    symlink(canary.file(), inside.join("file"))?;
    symlink(&canary.directory, inside.join("directory"))?;
    let wanted = json!({"nucleus.dev/volume-digest.evil": digest(c, &volume)?});
    let container = demanding(c, &wanted, "/app", &volume).start().await?;
    canary.is_unread(&container.sh("cat /app/file /app/directory/file; ls -R /app").await?)?;
    attacked(1);
    let fifo = inside.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )?;
    let error = refused(demanding(c, &wanted, "/app", &volume).create().await)?;
    error.saying("\"/app/fifo\" is neither a file, a directory nor a link")?;
    std::fs::remove_file(&fifo)?;
    std::fs::File::create(inside.join("large"))?.set_len((64 << 20) + 1)?;
    refused(demanding(c, &wanted, "/app", &volume).create().await)?.saying("more than 67108864 bytes")?;
    attacked(2);
    canary.is_untouched()
}

pub fn register(t: &mut Registry) {
    t.add(
        "a volume that is not what it has to be is refused, and a copy of it does not change",
        async |c| compared(c).await,
    )
    .differs(DIFFERS);
    t.add(
        "a volume's digest is refused by name where it could not count",
        async |c| named(c).await,
    )
    .differs(DIFFERS);
    t.add(
        "volumes that have no name are compared by the path at which they are mounted",
        async |c| by_path(c).await,
    )
    .differs(DIFFERS);
    t.add(
        "a volume is copied without following its links, and not beyond its bounds",
        async |c| bounded(c).await,
    )
    .differs(DIFFERS);
}
