//! What programs of the image's can become (CVE-2022-24769, 2022-29162), and user numbers that are read as others than
//! were said (containerd 2024-40635, 2026-46680, crun 2026-30892).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::XattrFlags;
use serde_json::{Value, json};

use super::canary::root;
use super::{attacked, judge, shown};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;

/// Capabilities of a file, as capabilities(7) has them in version 2: permitted, inheritable, and whether they are
/// effective.
fn give(path: &Path, permitted: u32, inheritable: u32, effective: bool) -> Result<()> {
    let words = [0x0200_0000 | u32::from(effective), permitted, inheritable, 0, 0];
    let value: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty())
        .with_context(|| format!("give {} capabilities", path.display()))
}

/// Sets a process up as a user without rights of its own.
fn unprivileged(process: &mut Value, no_new_privs: bool, inheritable: &[&str]) {
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["noNewPrivileges"] = json!(no_new_privs);
    process["capabilities"] = json!({"bounding": spec::CAPABILITIES, "inheritable": inheritable});
}

/// The permitted set of a program that runs so, as init and as an exec: they are the same.
async fn permitted(c: &Ctx, root: &Path, program: &str, no_new_privs: bool, inheritable: &[&str]) -> Result<u64> {
    let init = c.container().args(&[program]).root_at(root);
    let init = init.spec(|spec| unprivileged(&mut spec["process"], no_new_privs, inheritable));
    let container = c.container().waiting().root_at(root).start().await?;
    let exec = container
        .exec(&[program])
        .process(|process| unprivileged(process, no_new_privs, inheritable));
    let mut found = Vec::new();
    for output in [init.output().await?, exec.output().await?] {
        let facts = output.json()?;
        let set = facts["status"]["CapPrm"]
            .as_str()
            .context("no permitted set")?
            .to_owned();
        found.push(u64::from_str_radix(&set, 16)?);
    }
    container.kill(9).await?;
    container.wait().await?;
    container.delete().await?;
    same!(found[0], found[1], "init and an exec of {program}");
    Ok(found[0])
}

async fn file_capabilities(c: &Ctx) -> Result<()> {
    let root = root(c, "root")?;
    for (name, permitted, inheritable, effective) in [
        ("netraw", 1 << NET_RAW, 0, true),
        ("sysadmin", 1 << SYS_ADMIN, 0, false),
        ("inherits", 0, 1 << NET_RAW, true),
    ] {
        let path = root.join("bin").join(name);
        std::fs::copy(&c.tools.probe, &path)?;
        give(&path, permitted, inheritable, effective)?;
    }
    let net_raw = 1 << NET_RAW;
    // Under no_new_privs nothing.
    same!(permitted(c, &root, "netraw", true, &[]).await?, 0);
    attacked(2);
    same!(
        permitted(c, &root, "netraw", false, &[]).await?,
        net_raw,
        "without no_new_privs"
    );
    shown(2);
    // Never what is not in the bounding set.
    same!(permitted(c, &root, "sysadmin", false, &[]).await?, 0);
    attacked(2);
    // CVE-2022-24769: with an inheritable set that nobody asked for, this file gave its capability to every user.
    same!(permitted(c, &root, "inherits", false, &[]).await?, 0);
    attacked(2);
    same!(
        permitted(c, &root, "inherits", false, &["CAP_NET_RAW"]).await?,
        net_raw,
        "with an inheritable set"
    );
    shown(2);
    Ok(())
}

async fn numbers(c: &Ctx) -> Result<()> {
    let root = root(c, "root")?;
    // Whoever looks a number up as a name finds root.
    let names = ["1", "1000", "2147483648", "4294967294", "4294967295", "99999999999"];
    let passwd: String = names
        .iter()
        .map(|name| format!("{name}:x:0:0::/root:/bin/sh\n"))
        .collect();
    let group: String = names.iter().map(|name| format!("{name}:x:0:{name},root\n")).collect();
    std::fs::write(root.join("etc/passwd"), passwd)?;
    std::fs::write(root.join("etc/group"), group)?;
    let container = c.container().waiting().root_at(&root).start().await?;
    for id in [1_u32, 1000, 2_147_483_647, 2_147_483_648, 4_294_967_294] {
        if !c.is_nucleus() && i32::try_from(id).is_err() {
            // runc refuses half of the kernel's numbers.
            continue;
        }
        let user = json!({"uid": id, "gid": id, "additionalGids": [id]});
        let init = c.container().args(&["probe"]).root_at(&root);
        let init = init.spec(|spec| spec["process"]["user"] = user.clone());
        let exec = container
            .exec(&["probe"])
            .process(|process| process["user"] = user.clone());
        for output in [init.output().await?, exec.output().await?] {
            let status = output.json()?["status"].clone();
            for field in ["Uid", "Gid"] {
                same!(status[field], format!("{id} {id} {id} {id}"), "{field}");
            }
            // runc looks supplementary groups up as names, and finds root's.
            let groups = status["Groups"].as_str() == Some(id.to_string().as_str());
            judge(
                c,
                groups
                    .then_some(())
                    .with_context(|| format!("groups of {id}: {}", status["Groups"])),
            )?;
            attacked(1);
        }
    }
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add(
        "file capabilities of the image give no more than the spec allows, to init and to an exec",
        async |c| file_capabilities(c).await,
    )
    .within(60);

    t.add(
        "a user's number is that number, whoever is called so in the image",
        async |c| numbers(c).await,
    )
    .within(60);

    t.add(
        "an exec's user that is no number of the kernel's is refused",
        async |c| {
            let container = c.container().waiting().start().await?;
            for id in [
                json!(4_294_967_295_u32),
                json!(99_999_999_999_u64),
                json!(-1),
                json!("1"),
                json!(1.5),
            ] {
                for field in ["uid", "gid"] {
                    let exec = container
                        .exec(&["true"])
                        .process(|process| process["user"][field] = id.clone());
                    let outcome = match exec.create().await {
                        Ok(process) => process.start().await,
                        Err(error) => Err(error),
                    };
                    let refusal = refused(outcome).with_context(|| format!("{field} {id}"))?;
                    ensure!(refusal.text.len() < 2000, "{}", refusal.text);
                    attacked(1);
                }
            }
            Ok(())
        },
    )
    .differs("runc's own checks differ by version");
}
