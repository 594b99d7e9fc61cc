//! What an image or a pod says of itself: labels, annotations, checkpoints. None of it steers anything on the host
//! (containerd 2026-53488: an image's label was taken for the program that takes its logs; 2026-50195, 2026-53489,
//! 2026-53492: checkpoints were believed; kata GHSA-rr59-xxvx-96qr: annotations became arguments of a program on the
//! host).

use std::os::unix::fs::{PermissionsExt as _, symlink};

use anyhow::{Context as _, Result, ensure};
use containerd_shim_protos::api;
use serde_json::{Value, json};

use super::canary::Canary;
use super::{attacked, shown};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::same;
use crate::shim_process::{Shim, refused};
use crate::task::policy::annotated;

/// A program on the host that says that it ran; its URI, and where it says so.
fn program(c: &Ctx) -> Result<(String, std::path::PathBuf)> {
    let (program, mark) = (c.directory.join("program"), c.directory.join("mark"));
    let text = format!(
        "#!/bin/sh\necho ran > {}\nexec 5>&-\ncat <&3 >/dev/null\n",
        mark.display()
    );
    // Written by another process: a child of the test's that is forked meanwhile would hold it open for writing.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(&program)
        .arg(&text)
        .status()?;
    ensure!(written.success(), "the program was not written");
    same!(std::fs::metadata(&program)?.permissions().mode() & 0o111, 0o111);
    Ok((format!("binary://{}", program.display()), mark))
}

/// What a container sees of the host that an annotation might have changed.
fn seen(facts: &Value) -> Value {
    let mounts = facts["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    // A mount's point and options; its numbers and the names of snapshots differ from one container to the next.
    let mounts = mounts.map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" "));
    json!({
        "dev": facts["dev"],
        "env": facts["env"],
        "mounts": mounts.collect::<Vec<_>>(),
        "caps": facts["status"]["CapBnd"],
        "no_new_privs": facts["status"]["NoNewPrivs"],
        "seccomp": facts["status"]["Seccomp"],
    })
}

async fn annotations(c: &Ctx) -> Result<()> {
    let canary = Canary::plant(c)?;
    let (uri, mark) = program(c)?;
    let (path, host) = (
        uri.trim_start_matches("binary://").to_owned(),
        canary.directory.display().to_string(),
    );
    let plain = seen(&c.probe(|_| ()).await?);
    let hooks = json!({"createRuntime": [{"path": path}]}).to_string();
    let all = [
        // containerd's: the restart monitor's log, CRI's, stargz'.
        ("containerd.io/restart.loguri", uri.clone()),
        ("containerd.io/restart.logpath", host.clone()),
        ("io.containerd.image.config.log-uri", uri.clone()),
        ("io.kubernetes.cri.log-uri", uri.clone()),
        // CDI: devices, mounts and hooks by name.
        ("cdi.k8s.io/vgpu", "vendor.com/device=all".to_owned()),
        (
            "nvidia.cdi.k8s.io/container.test",
            "runtime.nvidia.com/gpu=all".to_owned(),
        ),
        // crun's, podman's, CRI-O's.
        ("run.oci.handler", path.clone()),
        ("run.oci.hooks.stderr", canary.file().display().to_string()),
        ("run.oci.mount_context_type", "rootcontext".to_owned()),
        ("run.oci.keep_original_groups", "1".to_owned()),
        ("org.criu.config", canary.file().display().to_string()),
        ("io.podman.annotations.privileged", "TRUE".to_owned()),
        ("io.kubernetes.cri-o.Devices", "/dev/kmsg".to_owned()),
        ("io.kubernetes.cri-o.LinkLogs", host.clone()),
        // kata's and gVisor's: what their helpers on the host are started with.
        (
            "io.katacontainers.config.hypervisor.virtio_fs_extra_args",
            json!(["-o", "source=/"]).to_string(),
        ),
        ("io.katacontainers.config.hypervisor.path", path.clone()),
        ("dev.gvisor.internal.nvproxy", "true".to_owned()),
        ("dev.gvisor.spec.mount.x.source", host.clone()),
        // Nobody's.
        ("hooks", hooks),
        ("../../../etc/passwd", uri.clone()),
        ("", uri.clone()),
    ];
    for (key, value) in all {
        let init = annotated(c.container().args(&["probe"]), &json!({key: value}));
        // Refused is as well.
        if let Ok(output) = init.output().await {
            same!(seen(&output.json()?), plain, "{key}");
        }
        let container = annotated(c.container().waiting(), &json!({key: value})).start().await;
        if let Ok(container) = container {
            let facts = container.exec(&["probe"]).output().await?.json()?;
            same!(facts["dev"], plain["dev"], "an exec's devices: {key}");
            same!(
                facts["status"]["CapBnd"],
                plain["caps"],
                "an exec's capabilities: {key}"
            );
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
        }
        attacked(2);
        ensure!(!mark.exists(), "annotation {key} ran a program on the host");
        canary.is_untouched()?;
    }
    // Said by who may say it, the same URI does run the program.
    let container = c.container().args(&["true"]).streams(["", &uri, &uri]).start().await?;
    container.wait().await?;
    container.delete().await?;
    c.eventually("the program says that it ran", async || Ok(mark.exists()))
        .await?;
    shown(1);
    Ok(())
}

async fn checkpoint(c: &Ctx) -> Result<()> {
    let canary = Canary::plant(c)?;
    let archive = c.directory.join("checkpoint");
    std::fs::create_dir_all(&archive)?;
    for name in ["container.log", "status", "io.stats", "descriptors.json"] {
        symlink(canary.file(), archive.join(name))?;
    }
    let dump = json!({"annotations": {"cdi.k8s.io/x": "vendor.com/device=all"}});
    std::fs::write(archive.join("spec.dump"), dump.to_string())?;
    let shim = Shim::start(c).await?;
    let request = api::CreateTaskRequest {
        checkpoint: archive.display().to_string(),
        ..shim.create_request()
    };
    let (code, text) = refused(shim.task::<api::CreateTaskResponse>("Create", &request).await)?;
    same!(code, ttrpc::Code::UNIMPLEMENTED, "{text}");
    ensure!(text.contains("restoring from a checkpoint"), "{text}");
    ensure!(!text.contains(&canary.word), "{text}");
    attacked(1);
    shim.end().await?;
    let left = std::fs::read_dir(&archive)?.count();
    same!(left, 5, "files of the checkpoint");
    canary.is_untouched()
}

pub fn register(t: &mut Registry) {
    t.add(
        "annotations and labels that steer other programs run and change nothing, for init and for an exec",
        async |c| annotations(c).await.context("annotations"),
    )
    .within(120);

    t.add(
        "a checkpoint is not restored, and nothing in it is followed",
        async |c| checkpoint(c).await,
    )
    .differs("runc hands checkpoints to CRIU");
}
