//! A pod's emptyDir volumes and its /dev/shm, as far as the sentry keeps them, and what of them the host sees.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::mounts::HostMount;
use crate::task::policy::handler;
use crate::{processes, same, spec};

use super::pods::{member, sandbox};
use super::settings::names;

const UID: &str = "5d2c5b8e-0b4e-4c43-9d3e-3d0c7b1f5a11";

/// A kubelet's root directory, with one pod.
struct Kubelet(PathBuf);

impl Kubelet {
    fn new(c: &Ctx) -> Self {
        Self(c.directory.join("kubelet"))
    }

    fn pod(&self) -> PathBuf {
        self.0.join("pods").join(UID)
    }

    /// The directory of a volume, made as kubelet makes it.
    fn volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.pod().join("volumes/kubernetes.io~empty-dir").join(name);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        Ok(path)
    }

    /// The handler's options: who keeps the volumes below it.
    fn options(&self, keeper: &str) -> prost_types::Any {
        let root = self.0.display();
        handler(&format!(
            "[gvisor]\nempty_dir = \"{keeper}\"\nkubelet_root = [\"{root}\"]\n"
        ))
    }
}

/// With the pod's uid, and the pod's own annotations.
fn of_pod<'a>(builder: Builder<'a>, annotations: &Value) -> Builder<'a> {
    builder.spec(|spec| {
        spec["annotations"]["io.kubernetes.cri.sandbox-uid"] = UID.into();
        for (key, value) in annotations.as_object().into_iter().flatten() {
            spec["annotations"][key] = value.clone();
        }
    })
}

fn with<'a>(builder: Builder<'a>, source: &Path, destination: &str, mode: &str) -> Builder<'a> {
    let source = source.display().to_string();
    builder.spec(|spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
        spec::push(
            spec,
            "/mounts",
            spec::mount(destination, "bind", &source, &["rbind", mode]),
        );
    })
}

/// Ends containers and deletes them, one after the other.
async fn end(containers: &[&Container<'_>]) -> Result<()> {
    for container in containers {
        container.kill(9).await?;
        container.wait().await?;
        container.delete().await?;
    }
    Ok(())
}

/// Of what is mounted at a path: file system, mode, owner, group.
const LOOK: &str = "stat -f -c %T /data; stat -c '%a %u %g' /data";

pub fn register(t: &mut Registry) {
    t.add(
        "an emptyDir volume that the sentry keeps is the pod's, and one file of the host's",
        async |c| {
            let kubelet = Kubelet::new(c);
            let data = kubelet.volume("data")?;
            // As kubelet makes it for a pod with an fsGroup.
            std::os::unix::fs::chown(&data, None, Some(2000))?;
            std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o2777))?;
            let pod = of_pod(sandbox(c).options(kubelet.options("sentry")), &json!({}))
                .start()
                .await?;
            // Who only reads it is there first.
            let reader = with(member(c, &pod.id), &data, "/data", "ro").start().await?;
            let writer = with(member(c, &pod.id), &data, "/data", "rw");
            let writer = with(writer, &data, "/again", "rw").start().await?;
            same!(writer.sh(LOOK).await?.ok()?, "tmpfs\n2777 0 2000\n");
            writer.sh("echo kept > /data/file; mkdir /again/below").await?.ok()?;
            same!(
                reader.sh("cat /data/file; ls /data").await?.ok()?,
                "kept\nbelow\nfile\n"
            );
            ensure!(
                reader.sh("echo x > /data/file").await?.code != 0,
                "it was to be read-only"
            );
            same!(names(&data)?, [format!(".gvisor.filestore.{}", pod.id)]);
            end(&[&writer]).await?;
            // A container that kubelet starts anew finds what the one before it left.
            let again = with(member(c, &pod.id), &data, "/data", "rw").start().await?;
            same!(again.sh("cat /data/file").await?.ok()?, "kept\n");
            end(&[&reader, &again, &pod]).await?;
            same!(names(&data)?, Vec::<String>::new());
            Ok(())
        },
    );
    t.add(
        "an emptyDir volume is the host's where nobody said otherwise",
        async |c| {
            let kubelet = Kubelet::new(c);
            let (data, used) = (kubelet.volume("data")?, kubelet.volume("used")?);
            for keeper in ["host", "sentry"] {
                std::fs::write(used.join("before"), "the host's\n")?;
                let pod = of_pod(sandbox(c).options(kubelet.options(keeper)), &json!({}));
                let pod = pod.start().await?;
                let one = with(member(c, &pod.id), &data, "/data", "rw");
                let one = with(one, &used, "/used", "rw").start().await?;
                one.sh("echo x > /data/file").await?.ok()?;
                same!(data.join("file").exists(), keeper == "host");
                // What has content when the pod starts has it afterwards.
                same!(one.sh("cat /used/before").await?.ok()?, "the host's\n");
                if keeper == "host" {
                    std::fs::remove_file(data.join("file"))?;
                }
            }
            Ok(())
        },
    );
    t.add(
        "an emptyDir volume in memory is limited to its size, and the host has nothing of it",
        async |c| {
            let kubelet = Kubelet::new(c);
            let memory = kubelet.volume("memory")?;
            let mount = HostMount::tmpfs(&memory, "size=1m,mode=777")?;
            let pod = of_pod(sandbox(c).options(kubelet.options("sentry")), &json!({}))
                .start()
                .await?;
            let one = with(member(c, &pod.id), &memory, "/data", "rw").start().await?;
            let two = with(member(c, &pod.id), &memory, "/data", "rw").start().await?;
            same!(one.sh(LOOK).await?.ok()?, "tmpfs\n777 0 0\n");
            let full = one.sh("dd if=/dev/zero of=/data/large bs=64k count=40").await?;
            ensure!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");
            one.sh("rm /data/large; echo x > /data/file").await?.ok()?;
            same!(two.sh("cat /data/file").await?.ok()?, "x\n");
            same!(names(&memory)?, Vec::<String>::new());
            end(&[&one, &two, &pod]).await?;
            drop(mount);
            Ok(())
        },
    );
    t.add(
        "a disk that is full is an error of the program's, and the sentry lives on",
        async |c| {
            let kubelet = Kubelet::new(c);
            // Not a volume of medium Memory: what is above it is on the same file system.
            std::fs::create_dir_all(&kubelet.0)?;
            let disk = HostMount::tmpfs(&kubelet.0, "size=4m")?;
            let data = kubelet.volume("data")?;
            let pod = of_pod(sandbox(c).options(kubelet.options("sentry")), &json!({}))
                .start()
                .await?;
            let one = with(member(c, &pod.id), &data, "/data", "rw").start().await?;
            let full = one.sh("dd if=/dev/zero of=/data/large bs=64k count=140").await?;
            ensure!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");
            same!(
                one.sh("rm /data/large; echo lives > /data/file; cat /data/file")
                    .await?
                    .ok()?,
                "lives\n"
            );
            end(&[&one, &pod]).await?;
            drop(disk);
            Ok(())
        },
    );
    t.add("a pod chooses for each volume, as for gVisor's own shim", async |c| {
        let kubelet = Kubelet::new(c);
        let volumes = ["disk", "memory", "host"].map(|name| kubelet.volume(name));
        let [disk, memory, host] = volumes;
        let (disk, memory, host) = (disk?, memory?, host?);
        let asks = |volume: &str, kind: &str| {
            json!({
                format!("dev.gvisor.spec.mount.{volume}.share"): "pod",
                format!("dev.gvisor.spec.mount.{volume}.type"): kind,
            })
        };
        let mut annotations = asks("disk", "bind");
        if let (Some(all), Value::Object(more)) = (annotations.as_object_mut(), asks("memory", "tmpfs")) {
            all.extend(more);
        }
        let options = || kubelet.options("host");
        let pod = of_pod(sandbox(c).options(options()), &annotations).start().await?;
        let mounted = |builder| {
            let builder = with(builder, &disk, "/disk", "rw");
            with(with(builder, &memory, "/memory", "rw"), &host, "/host", "rw")
        };
        let one = of_pod(mounted(member(c, &pod.id)), &annotations).start().await?;
        let two = of_pod(mounted(member(c, &pod.id)), &annotations).start().await?;
        one.sh("for top in disk memory host; do echo $top > /$top/file; done")
            .await?
            .ok()?;
        let read = "cat /disk/file /memory/file /host/file";
        same!(two.sh(read).await?.ok()?, "disk\nmemory\nhost\n");
        same!(names(&disk)?, [format!(".gvisor.filestore.{}", pod.id)]);
        same!(names(&memory)?, Vec::<String>::new());
        same!(names(&host)?, ["file"]);
        for (volume, kind, words) in [
            (
                "disk",
                "ext4",
                "annotation dev.gvisor.spec.mount.disk.type is not supported",
            ),
            ("other", "bind", "the pod has no emptyDir volume of this name"),
        ] {
            let pod = of_pod(sandbox(c).options(options()), &asks(volume, kind));
            refused(pod.create().await)?.saying(words)?;
        }
        Ok(())
    });
    t.add(
        "a part of a volume that the sentry keeps is refused by name",
        async |c| {
            let kubelet = Kubelet::new(c);
            let data = kubelet.volume("data")?;
            let part = kubelet.pod().join("volume-subpaths/data/web/0");
            std::fs::create_dir_all(&part)?;
            let options = || kubelet.options("sentry");
            let pod = of_pod(sandbox(c).options(options()), &json!({})).start().await?;
            let whole = with(member(c, &pod.id), &data, "/data", "rw").start().await?;
            whole.sh("echo x > /data/file").await?.ok()?;
            refused(with(member(c, &pod.id), &part, "/part", "rw").create().await)?
                .saying("mounts: /part is not supported")?
                .saying("dev.gvisor.spec.mount.<volume>.share to shared")?;
            // A pod that mounts the part first has the volume from the host, as its annotation would have it.
            let pod = of_pod(sandbox(c).options(options()), &json!({})).start().await?;
            let part = with(member(c, &pod.id), &part, "/part", "rw").start().await?;
            let whole = with(member(c, &pod.id), &data, "/data", "rw").start().await?;
            whole.sh("echo x > /data/other").await?.ok()?;
            part.sh("echo x > /part/file").await?.ok()?;
            ensure!(data.join("other").exists());
            Ok(())
        },
    );
    t.add(
        "a pod's /dev/shm is the sentry's, with the size that it has on the host",
        async |c| {
            let shm = c.directory.join("shm");
            std::fs::create_dir(&shm)?;
            let mount = HostMount::tmpfs(&shm, "size=1m,mode=1777")?;
            let pod = with(sandbox(c), &shm, "/dev/shm", "rw").start().await?;
            let one = with(member(c, &pod.id), &shm, "/dev/shm", "rw").start().await?;
            let two = with(member(c, &pod.id), &shm, "/dev/shm", "rw").start().await?;
            one.sh("echo shared > /dev/shm/file").await?.ok()?;
            let look = "cat /dev/shm/file; stat -c %a /dev/shm";
            same!(two.sh(look).await?.ok()?, "shared\n1777\n");
            ensure!(two.sh("head -c 2000000 /dev/zero > /dev/shm/large").await?.code != 0);
            same!(names(&shm)?, Vec::<String>::new());
            end(&[&one, &two, &pod]).await?;
            drop(mount);
            Ok(())
        },
    );
    t.add("a pod whose shim is killed leaves nothing in its volumes", async |c| {
        let kubelet = Kubelet::new(c);
        let data = kubelet.volume("data")?;
        let pod = of_pod(sandbox(c).options(kubelet.options("sentry")), &json!({}))
            .start()
            .await?;
        let one = with(member(c, &pod.id), &data, "/data", "rw").start().await?;
        one.sh("echo x > /data/file").await?.ok()?;
        same!(names(&data)?.len(), 1);
        processes::kill(processes::shim_of(pod.pid.get()).context("no shim")?);
        c.eventually("its volume is empty", async || Ok(names(&data)?.is_empty()))
            .await?;
        for id in [&one.id, &pod.id] {
            c.events().wait_for(id, "exit", |event| event.process == *id).await?;
        }
        Ok(())
    });
}
