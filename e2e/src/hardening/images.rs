//! Images whose directories and files are links that lead to the host, wherever a runtime mounts or makes something
//! (CVE-2019-19921, 2023-27561, 2023-28642, 2024-45310, 2025-31133, 2025-52565, youki 2025-54867, 2025-62161, crun
//! 2026-47766, 2026-88264, 2026-88265, runc 2026-41579).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::canary::{Canary, replace_by_link, root};
use super::{attacked, judge, shown};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::{same, spec};

/// Where something is mounted or made, and whether it is a file.
const PLACES: [(&str, bool); 12] = [
    ("/dev", false),
    ("/dev/pts", false),
    ("/dev/shm", false),
    ("/dev/mqueue", false),
    ("/dev/console", true),
    ("/dev/null", true),
    ("/proc", false),
    ("/sys", false),
    ("/etc", false),
    ("/etc/hosts", true),
    ("/etc/resolv.conf", true),
    ("/mnt/volume", false),
];

/// The links that are tried for each: straight to the host, up to it, to what is not there yet, in a circle.
fn links(place: &str, is_file: bool, canary: &Canary) -> [String; 4] {
    let target = match is_file {
        true => canary.file(),
        false => canary.directory.clone(),
    };
    let target = target.display();
    [
        target.to_string(),
        format!("../../../../../../../..{target}"),
        format!("{}/new", canary.directory.display()),
        place.to_owned(),
    ]
}

fn mounts_on_the_image(spec: &mut Value, place: &str, hosts: &Path) {
    if place.starts_with("/dev/") {
        // Where /dev is a tmpfs, the image has no say in what is below it.
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != "/dev");
        }
    }
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        let source = hosts.display().to_string();
        spec::push(spec, "/mounts", spec::mount(file, "bind", &source, &["rbind", "ro"]));
    }
    spec::push(
        spec,
        "/mounts",
        spec::mount("/mnt/volume", "tmpfs", "tmpfs", &["nosuid"]),
    );
}

/// The host's pattern for core dumps: the canary of those who can write to the kernel. Put back if it was changed.
struct CorePattern(String);

impl CorePattern {
    const PATH: &str = "/proc/sys/kernel/core_pattern";

    fn now() -> Result<Self> {
        Ok(Self(std::fs::read_to_string(Self::PATH)?))
    }

    fn is_unchanged(&self) -> Result<()> {
        let after = std::fs::read_to_string(Self::PATH)?;
        ensure!(self.0 == after, "kernel.core_pattern was {:?} and is {after:?}", self.0);
        Ok(())
    }
}

impl Drop for CorePattern {
    fn drop(&mut self) {
        if self.is_unchanged().is_err()
            && let Err(error) = std::fs::write(Self::PATH, &self.0)
        {
            eprintln!("put {} back: {error}", Self::PATH);
        }
    }
}

async fn attack(c: &Ctx, number: usize, place: &str, is_file: bool, kind: usize) -> Result<()> {
    let canary = Canary::plant(c)?;
    let link = &links(place, is_file, &canary)[kind];
    let root = root(c, &format!("root{number}"))?;
    let path = root.join(place.trim_start_matches('/'));
    replace_by_link(&path, link)?;
    if kind < 2 && std::fs::metadata(&path).is_ok() {
        // Whoever follows it by its name is at the canary: that is what makes it an attack.
        shown(1);
    }
    let hosts = c.directory.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n")?;
    // A console would be waited for.
    let script = format!(
        "[ -c {place} ] || cat {place} {place}/file {place}/inner/file {place}/../file; echo changed > {place}; \
         echo changed > {place}/file; mkdir {place}/made; cat /etc/hosts; echo end"
    );
    let mut container = c.container().sh(&script).root_at(&root);
    if number.is_multiple_of(2) {
        container = container.terminal();
    }
    let container = container.spec(|spec| mounts_on_the_image(spec, place, &hosts));
    // Refused or run: both are right, as long as the host is not met.
    if let Ok(container) = container.create().await {
        if container.start().await.is_ok() {
            let exec = container.sh(&script).await;
            let output = container.output().await?;
            canary.is_unread(&output)?;
            if let Ok(output) = exec {
                canary.is_unread(&output)?;
            }
        } else {
            container.kill(9).await.ok();
        }
        container.delete().await.ok();
    }
    attacked(1);
    canary.is_untouched()
}

/// The numbers of a device of this host's that containers are not given and that root can open.
pub fn openable_device() -> Result<(u32, u32)> {
    // Opened, they do nothing yet.
    const DEVICES: [(&str, (u32, u32)); 4] = [
        ("/dev/loop-control", (10, 237)),
        ("/dev/autofs", (10, 235)),
        ("/dev/fuse", (10, 229)),
        ("/dev/net/tun", (10, 200)),
    ];
    let found = DEVICES.iter().find(|(path, _)| std::fs::File::open(path).is_ok());
    Ok(found.context("this host has no device that the test knows")?.1)
}

pub fn register(t: &mut Registry) {
    t.add(
        "links in the image lead a mount or a device to the host nowhere",
        async |c| {
            let mut number = 0;
            for (place, is_file) in PLACES {
                for kind in 0..4 {
                    number += 1;
                    let outcome = attack(c, number, place, is_file, kind).await;
                    judge(c, outcome.with_context(|| format!("{place}, link {kind}")))?;
                }
            }
            Ok(())
        },
    )
    .within(180);

    t.add("a null device that the image made does not become a mask", async |c| {
        // CVE-2025-31133: the mask of a path was whatever the image had put at /dev/null.
        let canary = Canary::plant(c)?;
        let root = root(c, "root")?;
        replace_by_link(&root.join("dev/null"), "/proc/sys/kernel/core_pattern")?;
        let pattern = CorePattern::now()?;
        let script = "echo changed > /proc/kcore; echo changed > /proc/keys; head -c 100 /proc/kcore; head -c 100 \
            /proc/keys; \
                      echo changed > /masked; cat /masked";
        let container = c.container().sh(script).root_at(&root).spec(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["destination"] != "/dev");
            }
            spec::push(spec, "/linux/maskedPaths", json!("/masked"));
            let source = canary.file().display().to_string();
            spec::push(
                spec,
                "/mounts",
                spec::mount("/masked", "bind", &source, &["bind", "rw"]),
            );
        });
        if let Ok(container) = container.start().await {
            let output = container.output().await?;
            canary.is_unread(&output)?;
            ensure!(output.stdout.is_empty(), "a masked path was read: {output:?}");
            container.delete().await?;
        }
        attacked(3);
        pattern.is_unchanged()?;
        canary.is_untouched()
    })
    .differs("an old runc writes to the host's core pattern here, which is seen to work by accident alone");

    t.add("a device of the image's own cannot be opened", async |c| {
        let root = root(c, "root")?;
        let (path, (major, minor)) = (root.join("tmp/log"), openable_device()?);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).context("make a device")?;
        // Where this directory is on a nodev mount, so is what is made of it: nothing can be shown then.
        let can_be_shown = std::fs::File::open(&path).is_ok();
        let script = "dd if=/tmp/log bs=1 count=0 && echo opened";
        let container = c.container().waiting().root_at(&root).start().await?;
        for output in [
            c.container().sh(script).root_at(&root).output().await?,
            container.sh(script).await?,
        ] {
            attacked(1);
            ensure!(!output.stdout.contains("opened"), "{output:?}");
        }
        if !can_be_shown {
            return Ok(());
        }
        let allowed = c.container().sh(script).root_at(&root).spec(|spec| {
            spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        });
        let output = allowed.output().await?;
        ensure!(
            output.stdout.contains("opened"),
            "without the rule it is no attack: {output:?}"
        );
        shown(1);
        Ok(())
    });

    t.add(
        "set-user-ID programs of the image give nothing under no_new_privs",
        async |c| {
            for (no_new_privs, wanted) in [(true, "1000 1000 1000 1000"), (false, "1000 0 0 0")] {
                let container = c.container().waiting().start().await?;
                same!(
                    container
                        .sh("cp /bin/probe /bin/escalate && chmod 4755 /bin/escalate")
                        .await?
                        .code,
                    0
                );
                let exec = container.exec(&["/bin/escalate"]).process(|process| {
                    process["user"] = json!({"uid": 1000, "gid": 1000});
                    process["noNewPrivileges"] = json!(no_new_privs);
                });
                let facts = exec.output().await?.json()?;
                same!(facts["status"]["Uid"], wanted);
                if no_new_privs { attacked(1) } else { shown(1) }
            }
            Ok(())
        },
    );

    t.add(
        "streams that a process does not have are no file of the image's",
        async |c| {
            // crun 2026-88265: /dev/null was opened by its name in the image, and given to the container's user.
            let canary = Canary::plant(c)?;
            let root = root(c, "root")?;
            replace_by_link(&root.join("dev/null"), &canary.file().display().to_string())?;
            let script = format!("echo changed; echo changed >&2; cat; cat < {}", canary.file().display());
            let user = json!({"uid": 1000, "gid": 1000});
            let without_dev = |spec: &mut Value| {
                if let Some(mounts) = spec["mounts"].as_array_mut() {
                    mounts.retain(|mount| mount["destination"] != "/dev");
                }
            };
            let init = c
                .container()
                .sh(&script)
                .root_at(&root)
                .streams(["", "", ""])
                .spec(|spec| {
                    without_dev(spec);
                    spec["process"]["user"] = user.clone();
                });
            if let Ok(container) = init.start().await {
                container.wait().await?;
                container.delete().await?;
            }
            attacked(1);
            judge(c, canary.is_untouched())?;
            let container = c.container().waiting().root_at(&root).spec(without_dev);
            // An old runc puts its streams there, and does not start.
            if let Ok(container) = container.start().await {
                let exec = container.exec(&["sh", "-c", &script]).streams(["", "", ""]);
                if let Ok(exec) = exec.process(|process| process["user"] = user.clone()).start().await {
                    exec.wait().await?;
                    exec.delete().await?;
                }
                attacked(1);
            }
            judge(c, canary.is_untouched())
        },
    );

    t.add(
        "a terminal's name on a read-only image with a link leads to the host nowhere",
        async |c| {
            // crun 2026-88264: without a mount at /dev the node for the terminal was made where the image's link led.
            for read_only in [false, true] {
                let canary = Canary::plant(c)?;
                let root = root(c, &format!("root-{read_only}"))?;
                let target = canary.directory.join("console");
                replace_by_link(&root.join("dev/console"), &target.display().to_string())?;
                let container = c.container().args(&["true"]).root_at(&root).terminal().spec(|spec| {
                    if let Some(mounts) = spec["mounts"].as_array_mut() {
                        mounts.retain(|mount| mount["destination"] != "/dev");
                    }
                    spec["root"]["readonly"] = json!(read_only);
                });
                if let Ok(container) = container.start().await {
                    container.wait().await?;
                    container.delete().await?;
                }
                attacked(1);
                judge(c, canary.is_untouched())?;
            }
            Ok(()) as Result<()>
        },
    );

    t.add("files of users and groups of a gigabyte hold nothing up", async |c| {
        // containerd 2026-47262: whoever reads them to their end is killed for its memory.
        let root = root(c, "root")?;
        std::fs::File::create(root.join("etc/passwd"))?.set_len(1 << 30)?;
        std::fs::File::create(root.join("etc/group"))?.set_len(1 << 30)?;
        let begun = std::time::Instant::now();
        let container = c.container().sh("echo $HOME").root_at(&root);
        let outcome = container
            .spec(|spec| spec["process"]["user"]["uid"] = json!(1000))
            .output()
            .await;
        attacked(1);
        ensure!(
            begun.elapsed().as_secs() < 20,
            "it took {:?}: {outcome:?}",
            begun.elapsed()
        );
        Ok(()) as Result<()>
    })
    .within(60)
    .differs("runc reads the file to its end, and refuses what is no line");
}
