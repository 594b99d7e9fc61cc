//! The kernel's system calls (CVE-2019-10063, and what CVE-2016-0728, 2021-22555, 2021-26708, 2022-0185, 2022-1015,
//! 2026-31431 and io_uring's many needed first): what a filter denies, whatever convention a call is made by.

use anyhow::ensure;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{attacked, shown};
use crate::expect::refused;
use crate::harness::Registry;
use crate::same;
use crate::task::policy::{annotated, handler};

const DIFFERS: &str = "runc has no filters of its own";
const EPERM: i64 = 1;

/// The answers of `probe calls`, by the names of the calls.
fn answers(output: &Value) -> Vec<(&str, i64)> {
    let all = output.as_object().into_iter().flatten();
    all.map(|(name, errno)| (name.as_str(), errno.as_i64().unwrap_or(-1)))
        .collect()
}

pub fn register(t: &mut Registry) {
    t.add("the strict profile denies what kernels are attacked through, on init and execs", async |c| {
        let unfiltered = c.container().args(&["probe", "calls"]).output().await?.json()?;
        let works: Vec<&str> = answers(&unfiltered)
            .into_iter()
            .filter(|(_, errno)| *errno != EPERM)
            .map(|(name, _)| name)
            .collect();
        ensure!(works.len() >= 14, "without a filter only these are let through: {works:?}");
        shown(works.len());
        let strict = json!({"nucleus.dev/seccomp.profile": "strict"});
        let container = annotated(c.container().waiting(), &strict).start().await?;
        let init = annotated(c.container().args(&["probe", "calls"]), &strict);
        for output in [init.output().await?, container.exec(&["probe", "calls"]).output().await?] {
            let output = output.json()?;
            for (name, errno) in answers(&output) {
                same!(errno, EPERM, "{name}");
                attacked(1);
            }
        }
        // What ordinary programs do goes on.
        let script = "cd /tmp && mkdir d && echo x > d/f && mv d/f g && cat g && mkfifo p && (echo y > p & cat p) && \
                      kill -0 $$ && ls -l /proc/self/exe > /dev/null && id -u";
        same!(container.sh(script).await?.ok()?, "x\ny\n0\n");
        Ok(())
    })
    .differs(DIFFERS);

    t.add(
        "under containerd's own profile sockets of ciphers and of hypervisors cannot be had",
        async |c| {
            let profile = crate::spec::runtime_default()?;
            let container = || c.container().spec(|spec| spec["linux"]["seccomp"] = profile.clone());
            let waiting = container().waiting().start().await?;
            let init = container().args(&["probe", "calls"]);
            for output in [init.output().await?, waiting.exec(&["probe", "calls"]).output().await?] {
                let output = output.json()?;
                for name in [
                    "socket of AF_ALG",
                    "socket of AF_VSOCK",
                    "unshare of a user namespace",
                    "keyctl",
                    "add_key",
                ] {
                    same!(output[name], EPERM, "{name}");
                    attacked(1);
                }
            }
            let unfiltered = c.container().args(&["probe", "calls"]).output().await?.json()?;
            ensure!(
                unfiltered["socket of AF_ALG"] != EPERM,
                "without the profile: {unfiltered}"
            );
            shown(1);
            Ok(())
        },
    );

    t.add(
        "a call by another calling convention ends the process, not its thread alone",
        async |c| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
            let filtered = c
                .container()
                .args(&["probe", "foreign"])
                .spec(|spec| spec["linux"]["seccomp"] = profile);
            let output = filtered.output().await?;
            attacked(1);
            if c.is_nucleus() {
                same!((output.code, output.stdout.as_str()), (128 + 31, ""));
            } else {
                // libseccomp's default: the thread.
                shown(usize::from(output.stdout == "survived\n"));
            }
            same!(c.run(&["probe", "foreign"]).await?.ok()?, "survived\n");
            Ok(())
        },
    );

    t.add(
        "a profile of the node's holds beside the pod's own, and only with the pinned content",
        async |c| {
            let directory = c.directory.join("profiles");
            std::fs::create_dir_all(&directory)?;
            let text = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]})
            .to_string();
            let file = directory.join("web.json");
            std::fs::write(&file, &text)?;
            let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            let options = handler(&format!(
                "[seccomp]\nprofile = ['web']\ndirectory = '{}'\npinned = ['web=sha256:{digest}']\n",
                directory.display()
            ));
            let script = "mkdir /tmp/d 2>&1; rmdir /usr/data 2>&1; true";
            let own = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
            let make = || {
                let container = c.container().waiting().options(options.clone());
                container.spec(|spec| spec["linux"]["seccomp"] = own.clone())
            };
            let container = make().start().await?;
            let said = container.sh(script).await?.stdout;
            ensure!(said.contains("No space left on device"), "the node's filter: {said}");
            ensure!(said.contains("not supported"), "the pod's filter: {said}");
            attacked(1);
            shown(usize::from(c.container().sh("mkdir /tmp/d").output().await?.code == 0));
            std::fs::write(&file, text.replace("28", "0"))?;
            refused(make().create().await)?.saying("is pinned")?;
            std::fs::remove_file(&file)?;
            std::os::unix::fs::symlink("/dev/null", &file)?;
            refused(make().create().await)?.saying("seccomp.profile: opening")?;
            let unpinned = annotated(c.container().waiting(), &json!({"nucleus.dev/seccomp.profile": "web"}));
            refused(unpinned.create().await)?.saying("is not in seccomp.pinned")?;
            attacked(3);
            Ok(())
        },
    )
    .differs(DIFFERS);

    t.add("denied calls are denied also where they are logged", async |c| {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
        let container = c.container().waiting().options(handler("seccomp.log_denied = true\n"));
        let container = container
            .spec(|spec| spec["linux"]["seccomp"] = profile)
            .start()
            .await?;
        let output = container.sh("mkdir /tmp/d 2>/dev/null; ls /tmp").await?;
        attacked(1);
        same!(output.ok()?, "");
        // AUDIT_SECCOMP is type 1326. Not every kernel tells it, an audit daemon would take it away, and it is limited
        // in its rate: so this is for who reads it.
        let log = std::process::Command::new("dmesg").output()?;
        let log = String::from_utf8_lossy(&log.stdout);
        let told = log.lines().filter(|line| line.contains("type=1326")).count();
        println!("      the kernel's log has {told} lines about denied calls");
        Ok(())
    })
    .differs(DIFFERS);
}
