//! How a node has its sentries run: where they keep files and logs, and which more of runsc's flags it may set.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use containerd_client::tonic::Code;

use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::handler;
use crate::{same, spec};

use super::pods::{member, sandbox};
use super::trust::installed;

/// What the host sees of the root file system of a container that runs: it is mounted for the gofer alone.
fn rootfs_of(container: &Container<'_>, c: &Ctx) -> Result<PathBuf> {
    let gofers = crate::processes::descendants(crate::processes::shim_of(container.pid.get()).context("no shim")?);
    let bundle = format!("/bundles/{} ", container.id);
    let gofer = gofers
        .into_iter()
        .find(|process| process.command.starts_with("runsc-gofer") && format!("{} ", process.command).contains(&bundle))
        .with_context(|| format!("no gofer of {} in {}", container.id, c.namespace))?;
    Ok(PathBuf::from(format!("/proc/{}/root", gofer.pid)))
}

pub fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// With the pod's own choice.
fn asks<'a>(builder: Builder<'a>, runtime: &'static str) -> Builder<'a> {
    builder.spec(move |spec| spec["annotations"]["nucleus.dev/runtime"] = runtime.into())
}

const WRITE: &str = "echo kept > /written; rm /etc/group; ls -a /; cat /written";

pub fn register(t: &mut Registry) {
    t.add(
        "what a container writes is in one file of its snapshot, which it does not see",
        async |c| {
            let pod = sandbox(c).start().await?;
            let one = member(c, &pod.id).start().await?;
            for container in [&pod, &one] {
                let output = container.sh(WRITE).await?;
                ensure!(output.ok()?.ends_with("kept\n"), "{output:?}");
                ensure!(!output.stdout.contains("filestore"), "{output:?}");
                let rootfs = rootfs_of(container, c)?;
                let found = names(&rootfs)?;
                ensure!(found.contains(&format!(".gvisor.filestore.{}", pod.id)), "{found:?}");
                ensure!(!found.contains(&"written".to_owned()), "{found:?}");
                ensure!(
                    rootfs.join("etc/group").exists(),
                    "a file of the image is gone on the host"
                );
            }
            Ok(())
        },
    );
    t.add(
        "a container can be run again on the root file system of one that was killed",
        async |c| {
            let root = c.directory.join("root");
            for directory in ["bin", "dev", "proc", "sys", "tmp", "run"] {
                std::fs::create_dir_all(root.join(directory))?;
            }
            std::fs::copy(&c.tools.busybox, root.join("bin/busybox"))?;
            let pod = sandbox(c).start().await?;
            for code in ["3", "4"] {
                let script = format!("echo x > /file; exit {code}");
                let container = member(c, &pod.id).args(&["/bin/busybox", "sh", "-c", &script]);
                let container = container.root_at(&root).start().await?;
                same!(container.wait().await?.to_string(), code);
                container.delete().await?;
                // Nobody asked runsc to clean up.
                same!(
                    names(&root)?.iter().filter(|name| name.contains("filestore")).count(),
                    1
                );
            }
            Ok(())
        },
    );
    t.add(
        "a pod of a native handler may ask for a sentry, and none of gVisor's handler for the host's kernel",
        async |c| {
            let native = || handler("runtime = \"native\"\n");
            let plain = sandbox(c).options(native()).start().await?;
            let log = plain.sh("dmesg").await?;
            ensure!(!log.stdout.contains("gVisor"), "{log:?}");
            let pod = asks(sandbox(c).options(native()), "gvisor").start().await?;
            let one = asks(member(c, &pod.id).options(native()), "gvisor").start().await?;
            for container in [&pod, &one] {
                let log = container.sh("dmesg").await?;
                ensure!(log.ok()?.contains("gVisor"), "{log:?}");
            }
            refused(asks(sandbox(c), "native").create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("\"gvisor\" is demanded by the node's configuration")?;
            Ok(())
        },
    );
    t.add(
        "without an overlay a container's files are in its root file system, as natively",
        async |c| {
            let both = handler("[gvisor]\noverlay2 = \"root:self\"\nfile_access = \"shared\"\n");
            refused(c.container().waiting().options(both).create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("an overlay hides what the host changes")?;
            let none = handler("[gvisor]\noverlay2 = \"none\"\n");
            let container = c.container().waiting().options(none).start().await?;
            container.sh(WRITE).await?.ok()?;
            ensure!(rootfs_of(&container, c)?.join("written").exists());
            let shared = handler("[gvisor]\nfile_access = \"shared\"\n");
            let container = c.container().waiting().options(shared).start().await?;
            container.sh(WRITE).await?.ok()?;
            let rootfs = rootfs_of(&container, c)?;
            same!(std::fs::read_to_string(rootfs.join("written"))?, "kept\n");
            ensure!(!names(&rootfs)?.iter().any(|name| name.contains("filestore")));
            // Shared: what the host changes is seen.
            std::fs::write(rootfs.join("written"), "changed by the host\n")?;
            same!(container.sh("cat /written").await?.ok()?, "changed by the host\n");
            let memory = handler("[gvisor]\noverlay2 = \"root:memory\"\n");
            let container = c.container().waiting().options(memory).start().await?;
            container.sh(WRITE).await?.ok()?;
            let found = names(&rootfs_of(&container, c)?)?;
            ensure!(
                !found.iter().any(|name| name == "written" || name.contains("filestore")),
                "{found:?}"
            );
            Ok(())
        },
    );
    t.add(
        "runsc, sentry and gofer write debug logs where the node says",
        async |c| {
            let above = installed(c)?.with_file_name(format!("logs-{}", c.new_id()));
            let options = || {
                let above = above.display();
                handler(&format!(
                    "[gvisor]\ndebug_log = \"{above}\"\nflags = [\"strace=true\", \"debug-command=boot,gofer\"]\n"
                ))
            };
            let container = c.container().args(&["cat", "/etc/passwd"]).options(options());
            let id = container.id.clone();
            container.output().await?.ok()?;
            let logs = above.join(&c.namespace).join(&id);
            let found = names(&logs)?;
            same!(found.len(), 2, "{found:?}");
            let boot = found
                .iter()
                .find(|name| name.ends_with(".boot.txt"))
                .context("no log of the sentry")?;
            let text = std::fs::read_to_string(logs.join(boot))?;
            ensure!(
                text.contains("/etc/passwd") && text.contains("openat"),
                "no system call in {boot}"
            );
            same!(std::fs::metadata(&logs)?.permissions().mode() & 0o777, 0o700);
            // A directory that others may write to could lead the sentry's log anywhere.
            std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o777))?;
            refused(c.container().waiting().options(options()).create().await)?
                .saying("gvisor.debug_log")?
                .saying("not a directory of root's alone")?;
            std::fs::remove_dir_all(&above)?;
            Ok(())
        },
    );
    t.add(
        "a flag that weakens nothing reaches runsc, and any other is refused by its name",
        async |c| {
            let with = |flag: &str| {
                let options = handler(&format!("[gvisor]\nflags = [\"{flag}\"]\n"));
                c.container().waiting().options(options)
            };
            let container = with("directfs=false").start().await?;
            let shim = crate::processes::shim_of(container.pid.get()).context("no shim")?;
            let lines = crate::processes::descendants(shim);
            ensure!(
                lines.iter().any(|process| process.command.starts_with("runsc-sandbox")
                    && process.command.contains("--directfs=false")),
                "{lines:?}"
            );
            same!(container.sh("echo fine > /file; cat /file").await?.ok()?, "fine\n");
            for (flag, words) in [
                ("host-uds=all", "host-uds is refused: it weakens the sandbox"),
                ("profile=true", "profile is refused: it weakens the sandbox"),
                (
                    "platform=ptrace",
                    "platform is refused: nucleus sets it itself: set gvisor.platform",
                ),
                (
                    "TESTONLY-unsafe-nonroot=true",
                    "TESTONLY-unsafe-nonroot is refused: it is not one of",
                ),
                (
                    "dcache=many",
                    "dcache is refused: it is a whole number, not \\\"many\\\"",
                ),
                ("--dcache=1", "gvisor.flags is a list of `name=value`"),
            ] {
                refused(with(flag).create().await)?
                    .with_code(Code::InvalidArgument)?
                    .saying(&words.replace('\\', ""))?;
            }
            Ok(())
        },
    );
    t.add("a pod has no say in how its sentry runs", async |c| {
        for setting in [
            "gvisor.flags",
            "gvisor.overlay2",
            "gvisor.file_access",
            "gvisor.debug_log",
        ] {
            let container = c.container().waiting().spec(|spec| {
                spec["annotations"] = serde_json::json!({format!("nucleus.dev/{setting}"): "none"});
            });
            let error = refused(container.create().await)?;
            error.with_code(Code::InvalidArgument)?.saying(setting)?;
        }
        Ok(())
    });
    t.add(
        "a read-only root file system is read-only, and has no overlay",
        async |c| {
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["root"]["readonly"] = true.into());
            let container = container.start().await?;
            ensure!(container.sh("echo x > /file").await?.code != 0);
            ensure!(
                !names(&rootfs_of(&container, c)?)?
                    .iter()
                    .any(|name| name.contains("filestore"))
            );
            Ok(())
        },
    );
    t.add("an emptyDir in memory is a volume like any other", async |c| {
        let tmpfs = |spec: &mut serde_json::Value| {
            spec::push(
                spec,
                "/mounts",
                spec::mount("/scratch", "tmpfs", "tmpfs", &["size=1m", "mode=1777"]),
            );
        };
        let container = c.container().waiting().spec(tmpfs).start().await?;
        same!(
            container.sh("echo x > /scratch/file; cat /scratch/file").await?.ok()?,
            "x\n"
        );
        ensure!(container.sh("head -c 2000000 /dev/zero > /scratch/large").await?.code != 0);
        Ok(())
    });
}
