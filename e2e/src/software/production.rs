//! Production mode: the same servers under the policy that docs/policy.md shows, and what that policy refuses.

use anyhow::{Context as _, Result, ensure};
use containerd_client::tonic::Code;
use serde_json::json;

use super::{debian, servers};
use crate::container::Builder;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::spec::{self, mount};
use crate::task::policy::{annotated, handler};

const DOCUMENT: &str = include_str!("../../../docs/policy.md");

/// What stands above the policy in the document.
const TITLE: &str = "## A node for production\n";

const DIFFERS: &str = "the policy is nucleus' own";

/// The policy that the document shows, as the options of a handler.
fn policy() -> Result<String> {
    let (_, after) = DOCUMENT.split_once(TITLE).context("the document's section")?;
    let (_, block) = after.split_once("```toml\n").context("its policy")?;
    let (block, _) = block.split_once("```").context("the policy's end")?;
    // A handler's options have no version: it is the file's.
    ensure!(
        block.contains("version = 1\n") && block.contains("mode = \"production\"\n"),
        "{block}"
    );
    Ok(block.replace("version = 1\n", ""))
}

fn production(c: &Ctx) -> Result<Builder<'_>> {
    Ok(debian(c)?.options(handler(&policy()?)))
}

pub fn register(t: &mut Registry) {
    t.add("nginx runs under the documented policy", async |c| {
        servers::nginx(c, production(c)?).await
    })
    .differs(DIFFERS);
    t.add("PostgreSQL runs under the documented policy", async |c| {
        servers::postgresql(c, production(c)?).await
    })
    .differs(DIFFERS);
    t.add("redis runs under the documented policy", async |c| {
        servers::redis(c, production(c)?).await
    })
    .differs(DIFFERS);
    t.add(
        "what gives nothing under it is not there, for init and for execs",
        async |c| {
            let seen = "grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '; \
            cp /bin/true /dev/shm/program && /dev/shm/program 2>&1 | grep -o 'Permission denied'";
            let container = production(c)?.args(&["sleep", "1000"]).start().await?;
            let exec = container.exec(&["sh", "-c", seen]).process(|process| {
                process["noNewPrivileges"] = json!(false);
            });
            let said = exec.output().await?;
            ensure!(
                said.stdout == "CapBnd:00000000000004fb NoNewPrivs:1 Permission denied\n",
                "{said:?}"
            );
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add(
        "each thing that it does not allow is refused with one clear error",
        async |c| {
            let is = async |what: Builder<'_>, words: &[&str]| -> Result<()> {
                let mut refusal = refused(what.create().await)?.with_code(Code::InvalidArgument)?;
                for words in words {
                    refusal = refusal.saying(words)?;
                }
                ensure!(!refusal.text.contains('\n'), "more than a line: {}", refusal.text);
                Ok(())
            };
            let unlimited = production(c)?.spec(|spec| spec["linux"]["resources"]["memory"] = json!({}));
            is(
                unlimited,
                &[
                    "linux.resources.memory.limit",
                    "require.memory_limit = true",
                    "give the container",
                ],
            )
            .await?;
            for (source, what) in [
                ("/", "the host's root"),
                ("/proc", "/proc"),
                ("/sys", "/sys"),
                ("/dev", "/dev"),
                ("/boot", "/boot"),
                ("/etc", "/etc"),
                ("/run/containerd/containerd.sock", "containerd's state"),
                ("/var/run/docker.sock", "container runtime"),
                ("/var/lib/kubelet", "kubelet"),
            ] {
                let bound = production(c)?.spec(|spec| {
                    spec::push(spec, "/mounts", mount("/mnt", "bind", source, &["rbind", "ro"]));
                });
                is(bound, &["host_paths = \"refuse\"", "mounts[", what]).await?;
            }
            for (name, value) in [
                ("mode", "agent"),
                ("no_new_privs", "false"),
                ("landlock.tier", "baseline"),
                ("host_paths", "allow"),
                ("require.memory_limit", "false"),
                ("capabilities.allow", "all"),
            ] {
                let loosening = annotated(production(c)?, &json!({format!("nucleus.dev/{name}"): value}));
                is(loosening, &[name, "is demanded by"]).await?;
            }
            Ok(())
        },
    )
    .differs(DIFFERS);
}
