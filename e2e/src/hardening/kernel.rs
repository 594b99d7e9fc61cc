//! The kernel's own doors: procfs, sysctls, cgroups, devices (CVE-2019-16884, 2022-0492, 2022-0811, 2023-25809,
//! 2025-52881, youki 2025-62596).

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::canary::{Canary, root};
use super::{attacked, shown};
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

pub fn register(t: &mut Registry) {
    t.add("the kernel's settings cannot be changed from inside", async |c| {
        let before = std::fs::read_to_string(CORE_PATTERN)?;
        let script = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/overcommit_memory \
                      /proc/sys/kernel/modprobe /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper \
                      /proc/irq/default_smp_affinity /sys/fs/cgroup/memory/release_agent; do \
                      if { echo x > $f; } 2>/dev/null; then echo $f; fi; done";
        let container = c.container().waiting().start().await?;
        for output in [c.container().sh(script).output().await?, container.sh(script).await?] {
            same!(output.ok()?, "", "what could be written to");
            attacked(8);
        }
        same!(std::fs::read_to_string(CORE_PATTERN)?, before);
        // Opened without writing anything: what makes it an attack is that the file can be.
        let opened = c
            .container()
            .sh(": >> /proc/sys/vm/overcommit_memory && echo opened")
            .spec(|spec| {
                spec["linux"]["readonlyPaths"] = json!([]);
            });
        same!(opened.output().await?.stdout, "opened\n", "without read-only paths");
        shown(1);
        Ok(())
    });

    t.add("keys of sysctls do not lead out of their namespace", async |c| {
        let before = std::fs::read_to_string(CORE_PATTERN)?;
        let keys = [
            "net/../kernel/core_pattern",
            "net.ipv4/../../kernel/core_pattern",
            "net/ipv4/conf/../../../kernel/core_pattern",
            "kernel.core_pattern",
            "net.ipv4.ip_forward\nkernel.core_pattern",
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "net..kernel.core_pattern",
            "/kernel/core_pattern",
            "",
        ];
        for key in keys {
            let container = c
                .container()
                .args(&["true"])
                .spec(|spec| spec["linux"]["sysctl"] = json!({key: "|/changed"}));
            if let Ok(container) = container.create().await {
                container.kill(9).await?;
                container.delete().await?;
            }
            attacked(1);
            same!(std::fs::read_to_string(CORE_PATTERN)?, before, "{key:?}");
        }
        Ok(())
    });

    t.add("settings are written to the kernel's proc and to no other", async |c| {
        // CVE-2025-52881: with something else mounted over /proc/sys, what was meant for the kernel went there.
        let canary = Canary::plant(c)?;
        let fake = canary.directory.join("ipv4");
        std::fs::create_dir(&fake)?;
        std::fs::write(fake.join("ip_forward"), "0\n")?;
        let container = c.container().sh("cat /proc/sys/net/ipv4/ip_forward").spec(|spec| {
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            let source = canary.directory.display().to_string();
            spec::push(
                spec,
                "/mounts",
                spec::mount("/proc/sys/net", "bind", &source, &["bind", "rw"]),
            );
        });
        if let Ok(container) = container.create().await {
            container.kill(9).await?;
            container.delete().await?;
        }
        attacked(1);
        same!(std::fs::read_to_string(fake.join("ip_forward"))?, "0\n");
        Ok(())
    });

    t.add("devices that were not given cannot be made and opened", async |c| {
        let (major, minor) = super::images::openable_device()?;
        let script = format!(
            "mknod /tmp/one c {major} {minor}; dd if=/tmp/one bs=1 count=0 && echo opened; \
             mknod /tmp/disk b 8 0; dd if=/tmp/disk bs=1 count=1 && echo disk; \
             mknod /tmp/mem c 1 1; dd if=/tmp/mem bs=1 count=0 && echo mem; true"
        );
        let container = c.container().waiting().start().await?;
        for output in [c.container().sh(&script).output().await?, container.sh(&script).await?] {
            same!(output.ok()?, "");
            attacked(3);
        }
        let allowed = c.container().sh(&script).spec(|spec| {
            spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        });
        ensure!(
            allowed.output().await?.stdout.contains("opened"),
            "without the rule it is no attack"
        );
        shown(1);
        Ok(())
    });

    t.add("a cgroup mount does not reach the host's", async |c| {
        let script = "for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs 2>/dev/null); do \
                      if { : >> $f; } 2>/dev/null; then echo $f; fi; done; \
                      mkdir /sys/fs/cgroup/made /sys/fs/cgroup/memory/made 2>/dev/null && echo made";
        let given = |spec: &mut Value| {
            let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
            spec::push(
                spec,
                "/mounts",
                spec::mount("/sys/fs/cgroup", "cgroup", "cgroup", &options),
            );
            spec::push(spec, "/linux/namespaces", json!({"type": "cgroup"}));
        };
        let container = c.container().waiting().spec(given).start().await?;
        for output in [
            c.container().sh(script).spec(given).output().await?,
            container.sh(script).await?,
        ] {
            same!(output.stdout, "");
            attacked(1);
        }
        Ok(())
    });

    t.add("nothing is mounted over what labels are written through", async |c| {
        // CVE-2019-16884, 2025-52881: with a file system of the attacker's at /proc/self/attr the label went into a
        // file, and the process ran without.
        let canary = Canary::plant(c)?;
        for file in ["current", "exec", "apparmor/exec"] {
            let path = canary.directory.join("attr").join(file);
            std::fs::create_dir_all(path.parent().context("no directory")?)?;
            std::fs::write(&path, "unconfined\n")?;
        }
        let fake = canary.directory.join("attr").display().to_string();
        let root = root(c, "root")?;
        super::canary::replace_by_link(&root.join("attr"), "/proc/self/attr")?;
        super::canary::replace_by_link(&root.join("thread"), "/proc/thread-self/attr")?;
        for place in [
            "/proc/self/attr",
            "/proc/thread-self/attr",
            "/proc/1/attr",
            "/attr",
            "/thread",
        ] {
            let over = |spec: &mut Value| {
                spec::push(spec, "/mounts", spec::mount(place, "bind", &fake, &["bind", "rw"]));
            };
            let labelled = c.container().waiting().root_at(&root).spec(|spec| {
                over(spec);
                spec["process"]["apparmorProfile"] = json!("nucleus-missing");
            });
            // No profile of that name is loaded anywhere: never started without it.
            refused(labelled.create().await).with_context(|| place.to_owned())?;
            attacked(1);
            let plain = c.container().waiting().root_at(&root).spec(over);
            if let Ok(container) = plain.create().await {
                if container.start().await.is_ok() {
                    let look =
                        "cat /proc/self/attr/current /proc/self/attr/exec; grep /attr /proc/self/mountinfo; true";
                    let output = container.sh(look).await?;
                    ensure!(!output.stdout.contains("unconfined\nunconfined"), "{place}: {output:?}");
                    let exec = container.exec(&["true"]).process(|process| {
                        process["apparmorProfile"] = json!("nucleus-missing");
                    });
                    ensure!(
                        !exec.output().await.is_ok_and(|output| output.code == 0),
                        "{place}: an exec ran unlabelled"
                    );
                    attacked(1);
                }
                container.kill(9).await.ok();
                container.delete().await.ok();
            }
            for file in ["current", "exec", "apparmor/exec"] {
                let text = std::fs::read_to_string(canary.directory.join("attr").join(file))?;
                same!(text, "unconfined\n", "{place}: {file}");
            }
        }
        Ok(()) as Result<()>
    });

    t.add(
        "nothing is mounted by the workload, as root or in a user namespace of its own",
        async |c| {
            let attempts = [
                "mount -t tmpfs none /mnt",
                "mount --bind /bin /mnt",
                "mount -o remount,rw /sys",
                "umount /proc/kcore",
                "unshare -Urm mount -t tmpfs none /mnt",
                "unshare -Urpf --mount-proc true",
                // CVE-2022-0492: a cgroup v1 hierarchy of one's own, whose release_agent runs on the host.
                "unshare -UrmC mount -t cgroup -o rdma cgroup /mnt",
                "mount -t cgroup -o rdma cgroup /mnt",
                "mount -t proc proc /mnt",
                "mount -t sysfs sysfs /mnt",
            ];
            let container = c.container().waiting().start().await?;
            for attempt in attempts {
                let output = container
                    .sh(&format!("if {attempt} 2>/dev/null; then echo done; fi"))
                    .await?;
                same!(output.stdout, "", "{attempt}");
                attacked(1);
            }
            let unprotected = c
                .container()
                .waiting()
                .options(crate::task::policy::handler("landlock.tier = \"none\"\n"));
            let unprotected = unprotected.start().await?;
            same!(unprotected.sh(attempts[4]).await?.code, 0, "without the domain");
            shown(1);
            Ok(())
        },
    )
    .differs("runc has no Landlock: user namespaces mount");

    t.add("a symbolic link at /proc or /sys is refused", async |c| {
        for place in ["proc", "sys"] {
            let root = root(c, &format!("root-{place}"))?;
            let canary = c.directory.join(format!("fake-{place}"));
            std::fs::create_dir_all(canary.join("self/attr"))?;
            super::canary::replace_by_link(&root.join(place), &canary.display().to_string())?;
            let refusal = crate::expect::refused(c.container().waiting().root_at(&root).create().await)?;
            if c.is_nucleus() {
                refusal.saying("is a symbolic link in the image")?;
            }
            attacked(1);
            same!(std::fs::read_dir(&canary)?.count(), 1);
        }
        Ok(()) as Result<()>
    });
}
