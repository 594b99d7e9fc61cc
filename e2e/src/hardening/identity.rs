//! Who a process is, what decides it, and what of the image's has no say (CVE-2018-15664, 2019-14271, 2022-24769,
//! 2022-29162, 2024-0132, 2025-23266, youki 2025-27612, containerd 2024-40635, 2026-46680). More about users is in
//! `privileges`.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::canary::{Canary, root};
use super::{attacked, shown};
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::{annotated, handler};
use crate::{processes, same};

fn sets(status: &str) -> Vec<String> {
    let names = [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "Seccomp",
        "NoNewPrivs",
    ];
    let lines = status
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(&format!("{name}:"))));
    lines.map(str::to_owned).collect()
}

pub fn register(t: &mut Registry) {
    t.add(
        "an exec is no stronger than init, and nothing is inheritable",
        async |c| {
            let container = c.container().waiting().start().await?;
            let exec = container.exec(&["probe", "wait"]).start().await?;
            let (init, exec_d) = (
                processes::text(container.pid.get(), "status"),
                processes::text(exec.pid.get(), "status"),
            );
            same!(sets(&exec_d), sets(&init));
            ensure!(init.contains("CapInh:\t0000000000000000\n"), "{init}");
            attacked(1);
            exec.kill(9).await?;
            exec.wait().await?;
            exec.delete().await?;
            Ok(())
        },
    );

    t.add("a user that is no number of the kernel's is refused", async |c| {
        for uid in [
            json!(4_294_967_295_u32),
            json!(99_999_999_999_u64),
            json!(-1),
            json!("0"),
        ] {
            let init = c
                .container()
                .waiting()
                .spec(|spec| spec["process"]["user"]["uid"] = uid.clone());
            refused(init.create().await).with_context(|| uid.to_string())?;
            attacked(1);
        }
        Ok(())
    })
    .differs("runc's own checks differ by version");

    t.add(
        "a hook sees nothing of the container's environment or libraries",
        async |c| {
            let canary = Canary::plant(c)?;
            let (hook, out) = (c.directory.join("hook"), c.directory.join("out"));
            std::fs::write(
                &hook,
                format!("#!/bin/sh\ntr '\\0' '\\n' < /proc/self/environ > {}\n", out.display()),
            )?;
            std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
            let container = c.container().args(&["true"]).spec(|spec| {
                spec["process"]["env"] = json!([crate::spec::PATH, "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil"]);
                spec["hooks"]["createRuntime"] = json!([{"path": hook, "env": ["HOOK=yes"]}]);
            });
            container.output().await?;
            let seen = std::fs::read_to_string(&out).context("the hook wrote nothing")?;
            ensure!(!seen.contains("evil") && seen.contains("HOOK=yes"), "{seen}");
            attacked(1);
            canary.is_untouched()
        },
    );

    t.add("the runtime loads nothing of the image's", async |c| {
        let shim = std::fs::read(c.tools.shim.join("containerd-shim-nucleus-v2"))?;
        same!(
            program_headers(&shim)?
                .iter()
                .filter(|kind| matches!(kind, 2 | 3))
                .count(),
            0,
            "interpreter, dynamic section"
        );
        let root = root(c, "root")?;
        for library in [
            "lib/libnss_files.so.2",
            "lib64/libnss_files.so.2",
            "usr/lib/libnss_compat.so.2",
            "lib/libc.so.6",
        ] {
            let path = root.join(library);
            std::fs::create_dir_all(path.parent().context("no directory")?)?;
            std::fs::write(path, "not a library")?;
        }
        std::fs::write(root.join("etc/nsswitch.conf"), "passwd: files compat evil\n")?;
        std::fs::write(root.join("etc/ld.so.preload"), "/lib/libc.so.6\n")?;
        let container = c.container().waiting().root_at(&root).start().await?;
        same!(container.sh("echo fine").await?.stdout, "fine\n");
        attacked(4);
        Ok(())
    });

    t.add("annotations of a pod loosen nothing, and break nothing", async |c| {
        let strict = "no_new_privs = true\n[capabilities]\nallow = [\"CAP_CHOWN\"]\n[landlock]\ntier = \"hardened\"\n";
        let long = "x".repeat(100_000);
        for (key, value) in [
            ("nucleus.dev/no_new_privs", "false"),
            ("nucleus.dev/capabilities.allow", "all"),
            ("nucleus.dev/capabilities.allow", "CAP_CHOWN,CAP_SYS_ADMIN"),
            ("nucleus.dev/landlock.tier", "none"),
            ("nucleus.dev/mode", "agent\nno_new_privs = false"),
            ("nucleus.dev/runtime", "/bin/sh"),
            ("nucleus.dev/", "x"),
            ("nucleus.dev/../mode", "agent"),
            ("nucleus.dev/mode", long.as_str()),
            (long.as_str(), "harmless"),
        ] {
            let container = c.container().args(&["probe"]).options(handler(strict));
            let container = annotated(container, &json!({key: value}));
            match container.output().await {
                Ok(output) => {
                    let facts: Value = output.json()?;
                    same!(facts["status"]["NoNewPrivs"], "1", "{key:.40}");
                    same!(facts["status"]["CapBnd"], "0000000000000001", "{key:.40}");
                }
                Err(error) => {
                    let refusal = refused::<(), _>(Err(error))?;
                    ensure!(refusal.text.len() < 2000, "an error of {} bytes", refusal.text.len());
                    ensure!(
                        refusal.text.contains("nucleus.dev/") || refusal.text.contains("annotations"),
                        "{}",
                        refusal.text
                    );
                }
            }
            attacked(1);
        }
        let facts = c
            .container()
            .args(&["probe"])
            .spec(|spec| spec["process"]["noNewPrivileges"] = json!(false));
        same!(
            facts.output().await?.json()?["status"]["NoNewPrivs"],
            "0",
            "without the policy"
        );
        shown(1);
        Ok(()) as Result<()>
    })
    .within(60)
    .differs("the policy is nucleus' own");
}

/// The types of an ELF file's program headers (elf(5)), 64 bits, little endian.
fn program_headers(elf: &[u8]) -> Result<Vec<u32>> {
    let number = |at: usize, size: usize| -> Result<usize> {
        let bytes = elf.get(at..at + size).context("a short ELF file")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    (0..count)
        .map(|index| Ok(u32::try_from(number(offset + index * size, 4)?)?))
        .collect()
}
