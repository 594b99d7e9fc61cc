//! What holds the demo's containers: as the kernel tells it of their processes, and as they find out by trying.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::context::Ctx;
use crate::processes;
use crate::spec;

use super::pod::{self, Pod};

/// Things to look at and what was found.
type Found = Vec<(String, String)>;

/// Read from /proc and from the cgroups, from outside; an error where it is not what was asked for.
pub fn of_the_process(ctx: &Ctx, pod: &Pod<'_>) -> Result<Found> {
    let (web, sidecar) = (pod.web.pid.get(), pod.sidecar.pid.get());
    let mut found = namespaces(web, sidecar)?;
    let status = processes::text(web, "status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
            .with_context(|| format!("no {name} in /proc/{web}/status"))
    };
    found.push(("capabilities".to_owned(), capabilities(field("CapBnd")?)?));
    for set in ["CapEff", "CapPrm"] {
        if field(set)? != field("CapBnd")? {
            bail!(
                "{set} of process {web} is {}, its bounding set {}",
                field(set)?,
                field("CapBnd")?
            );
        }
    }
    match field("NoNewPrivs")? {
        "1" => found.push((
            "no_new_privs".to_owned(),
            "set: no set-user-ID program gains anything".to_owned(),
        )),
        other => bail!("no_new_privs of process {web} is {other}"),
    }
    let limits = [
        (
            "memory",
            "memory.limit_in_bytes",
            "memory.max",
            pod::MEMORY.to_string(),
            "64 MiB",
        ),
        ("pids", "pids.max", "pids.max", pod::PIDS.to_string(), "100 processes"),
    ];
    for (controller, old, new, wanted, shown) in limits {
        let (file, value) = cgroup_file(web, controller, old, new)?;
        if value != wanted {
            bail!("{file} is {value}, not {wanted}");
        }
        found.push((format!("{controller} limit"), format!("{shown}: {file} = {value}")));
    }
    let (file, value) = cgroup_file(web, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    if value.split(' ').next() != Some(&pod::CPU_QUOTA.to_string()) {
        bail!("{file} is {value}");
    }
    found.push(("cpu limit".to_owned(), format!("half a processor: {file} = {value}")));
    found.push(("paths".to_owned(), paths(web)));
    found.push(("host mounts".to_owned(), host_mounts(ctx)?));
    Ok(found)
}

fn namespaces(web: u32, sidecar: u32) -> Result<Found> {
    let of = |pid: &str| -> Result<BTreeMap<String, String>> {
        let mut links = BTreeMap::new();
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let path = format!("/proc/{pid}/ns/{kind}");
            let link = fs::read_link(&path).with_context(|| format!("read {path}"))?;
            links.insert(kind.to_owned(), link.display().to_string());
        }
        Ok(links)
    };
    let (host, web, sidecar) = (of("self")?, of(&web.to_string())?, of(&sidecar.to_string())?);
    let which = |wanted: &dyn Fn(&String) -> bool| {
        web.keys()
            .filter(|kind| wanted(kind))
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    };
    Ok(vec![
        ("own namespaces".to_owned(), which(&|kind| web[kind] != host[kind])),
        (
            "the pod shares".to_owned(),
            which(&|kind| web[kind] == sidecar[kind] && web[kind] != host[kind]),
        ),
    ])
}

/// Checks a mask against what was asked for and says what is in it.
fn capabilities(mask: &str) -> Result<String> {
    let mask = u64::from_str_radix(mask, 16).with_context(|| format!("read the mask {mask}"))?;
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").context("ask for the last capability")?;
    let all = last.trim().parse::<u32>().context("read the last capability")? + 1;
    if mask.count_ones() as usize != spec::CAPABILITIES.len() {
        bail!("the bounding set {mask:#x} has {} capabilities", mask.count_ones());
    }
    let names: Vec<String> = spec::CAPABILITIES
        .iter()
        .map(|name| name.trim_start_matches("CAP_").to_lowercase())
        .collect();
    Ok(format!("{} of {all}: {}", mask.count_ones(), names.join(" ")))
}

/// A file of a process's cgroup, of either version, and its value.
fn cgroup_file(pid: u32, controller: &str, old: &str, new: &str) -> Result<(String, String)> {
    let memberships = processes::text(pid, "cgroup");
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let file = if controllers.split(',').any(|name| name == controller) {
            format!("/sys/fs/cgroup/{controller}{path}/{old}")
        } else if controllers.is_empty() {
            format!("/sys/fs/cgroup{path}/{new}")
        } else {
            continue;
        };
        if let Ok(value) = fs::read_to_string(&file) {
            let name = file.rsplit('/').next().unwrap_or_default().to_owned();
            return Ok((name, value.trim().to_owned()));
        }
    }
    bail!("process {pid} is in no cgroup with {old} or {new}:\n{memberships}")
}

/// Masked and read-only paths, as mounts of the container's own table.
fn paths(pid: u32) -> String {
    let table = processes::text(pid, "mountinfo");
    let below = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|point| point.starts_with("/proc/") || point.starts_with("/sys/"))
    };
    let is_read_only = |line: &&str| {
        line.split(' ')
            .nth(5)
            .is_some_and(|options| options.split(',').any(|option| option == "ro"))
    };
    let on_proc = |line: &&str| line.contains(" - proc ");
    let covers: Vec<&str> = table.lines().filter(below).collect();
    format!(
        "{} below /proc and /sys masked, {} read-only",
        covers.iter().filter(|line| !on_proc(line)).count(),
        covers.iter().filter(|line| on_proc(line) && is_read_only(line)).count(),
    )
}

/// The container's mounts are in its own namespace alone.
fn host_mounts(ctx: &Ctx) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the host's mounts")?;
    match table.lines().find(|line| line.contains(&ctx.namespace)) {
        Some(line) => bail!("a mount of the container is on the host: {line}"),
        None => Ok("none: the rootfs is mounted in the container's own namespace".to_owned()),
    }
}

/// Attempts that have to fail, and how they do.
pub async fn by_trying(pod: &Pod<'_>) -> Result<Vec<(&'static str, String)>> {
    let attempts = [
        (
            "read /proc/keys",
            "test -z \"$(cat /proc/keys)\" && echo 'reads as empty' >&2",
        ),
        ("write a sysctl", "echo x > /proc/sys/kernel/core_pattern"),
        ("mount a tmpfs", "mount -t tmpfs none /mnt"),
        ("read a disk", "mknod /tmp/disk b 8 0; head -c1 /tmp/disk"),
        ("set the clock", "date -s 2000-01-01"),
    ];
    let mut found = Vec::new();
    for (what, script) in attempts {
        let output = pod.web.sh(script).await?;
        // Not by their exit codes: busybox's date ends with 0 all the same.
        let Some(text) = output.stderr.lines().next() else {
            bail!("{what}: nothing prevented it: {}", output.stdout);
        };
        found.push((what, text.trim_start_matches("sh: ").to_owned()));
    }
    Ok(found)
}
