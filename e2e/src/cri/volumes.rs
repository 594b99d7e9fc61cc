//! Volumes: what is mounted, how, and whose it is inside.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{processes, same};

use super::images::BUSYBOX;
use super::pods::{Cri, FOREVER, plain};

pub async fn recursive_read_only(cri: &Cri<'_>) -> Result<()> {
    let volume = cri.directory.join("volume");
    let below = volume.join("below");
    std::fs::create_dir_all(&below).context("make a volume")?;
    rustix::mount::mount("e2e", &below, "tmpfs", rustix::mount::MountFlags::empty(), None).context("mount in it")?;
    let outcome = recursive_read_only_with(cri, &volume).await;
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH).context("unmount it")?;
    outcome
}

async fn recursive_read_only_with(cri: &Cri<'_>, volume: &std::path::Path) -> Result<()> {
    let pod = cri.pod(plain).await?;
    for recursive in [false, true] {
        let container = pod
            .start(&FOREVER, |config| {
                config["mounts"] = json!([{"host_path": volume, "container_path": "/data", "readonly": true,
                    "recursive_read_only": recursive}]);
            })
            .await?;
        let at_top = container.sh("touch /data/file").await?;
        ensure!(
            at_top.stderr.contains("Read-only file system"),
            "at its top: {at_top:?}"
        );
        let below = container.sh("touch /data/below/file").await?;
        same!(
            below.stderr.contains("Read-only file system"),
            recursive,
            "below, recursive = {recursive}: {below:?}"
        );
    }
    pod.remove().await
}

pub async fn image_volume(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["mounts"] = json!([{"container_path": "/image", "image": {"image": BUSYBOX}, "readonly": true}]);
        })
        .await?;
    same!(
        container.sh("/image/bin/echo from the volume").await?.ok()?,
        "from the volume"
    );
    let written = container.sh("touch /image/file").await?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    let part = pod
        .start(&FOREVER, |config| {
            config["mounts"] = json!([{"container_path": "/part", "image": {"image": BUSYBOX}, "readonly": true,
                "image_sub_path": "etc"}]);
        })
        .await?;
    ensure!(
        part.sh("ls /part").await?.ok()?.contains("passwd"),
        "a part of an image is another"
    );
    pod.remove().await
}

pub async fn user_namespace(cri: &Cri<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let volume = cri.directory.join("volume");
    std::fs::create_dir_all(&volume).context("make a volume")?;
    std::fs::write(volume.join("seed"), "").context("write to it")?;
    let map = json!([{"host_id": 100_000, "container_id": 0, "length": 65_536}]);
    let options = json!({"userns_options": {"mode": 0, "uids": map, "gids": map}});
    let pod = cri
        .pod(|config| config["linux"]["security_context"] = json!({"namespace_options": options}))
        .await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["linux"]["security_context"] = json!({"namespace_options": options});
            config["mounts"] = json!([{"host_path": volume, "container_path": "/data",
                "uidMappings": map, "gidMappings": map}]);
        })
        .await?;
    let fields: Vec<String> = container
        .sh("cat /proc/self/uid_map")
        .await?
        .ok()?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    same!(fields, ["0", "100000", "65536"]);
    same!(
        container.sh("stat -c %u:%g /data/seed /bin/sh").await?.ok()?,
        "0:0\n0:0"
    );
    container.sh("touch /data/new").await?.ok()?;
    same!(
        std::fs::metadata(volume.join("new"))
            .context("look at what it wrote")?
            .uid(),
        0
    );
    let pid = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    let status = processes::text(u32::try_from(pid)?, "status");
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:\t"))
        .unwrap_or_default();
    ensure!(uid.starts_with("100000\t"), "it runs as {uid}");
    pod.remove().await
}

/// A volume whose links lead to a place of the host's, by its whole path and upwards, and mounts of the same pod at
/// them.
pub async fn hostile_links(cri: &Cri<'_>) -> Result<()> {
    let [volume, canary, other] = ["hostile", "canary", "other"].map(|name| cri.directory.join(name));
    for directory in [&volume, &canary, &other] {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    std::fs::write(canary.join("file"), "of the host\n").context("write a canary")?;
    std::fs::write(other.join("file"), "of the pod\n").context("write a volume")?;
    let upwards = format!("{}{}", "../".repeat(32), canary.strip_prefix("/")?.display());
    symlink(&canary, volume.join("whole")).context("make a link")?;
    symlink(&upwards, volume.join("upwards")).context("make a link")?;
    // A part of a volume, as kubelet resolves it for `subPath`: a file, and a link in it that leads out.
    symlink(canary.join("file"), other.join("link")).context("make a link")?;
    let pod = cri.pod(plain).await?;
    for link in ["whole", "upwards"] {
        let container = pod
            .start(&FOREVER, |config| {
                config["mounts"] = json!([
                    {"host_path": volume, "container_path": "/data"},
                    {"host_path": other, "container_path": format!("/data/{link}/mounted")},
                    {"host_path": other.join("file"), "container_path": format!("/data/{link}-file")},
                ]);
            })
            .await?;
        // It is mounted where the link leads inside.
        let inside = canary.join("mounted/file");
        for path in [
            format!("/data/{link}/mounted/file"),
            inside.display().to_string(),
            format!("/data/{link}-file"),
        ] {
            same!(
                container.sh(&format!("cat {path}")).await?.ok()?,
                "of the pod",
                "{path}"
            );
        }
        for path in [format!("/data/{link}/file"), format!("/data/{link}/mounted/link")] {
            let read = container.sh(&format!("cat {path}")).await?;
            ensure!(read.stderr.contains("No such file or directory"), "{path}: {read:?}");
        }
        container.sh(&format!("echo written > /data/{link}/new")).await?.ok()?;
        container.stop(0).await?;
        container.remove().await?;
    }
    pod.remove().await?;
    let left: Vec<_> = std::fs::read_dir(&canary)
        .context("look at the canary")?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    same!(left, ["file"], "what is in the host's directory");
    same!(
        std::fs::read_to_string(canary.join("file")).context("read the canary")?,
        "of the host\n"
    );
    Ok(())
}
