//! memory: Documentation/admin-guide/cgroup-v1/memory.rst.

use oci_spec::runtime::{LinuxMemory, LinuxResources};
use rustix::io::Errno;

use super::write_dependent;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP_LIMIT: &str = "memory.memsw.limit_in_bytes";
const KERNEL_LIMIT: &str = "memory.kmem.limit_in_bytes";

/// What a Go client makes of an unset swappiness: -1 in an unsigned field.
const UNSET_SWAPPINESS: u64 = u64::MAX;

pub(super) fn check(memory: &LinuxMemory) -> Result<(), Error> {
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit(), memory.swap())
        && swap < limit
    {
        return Err(Error::Value {
            setting: "resources.memory.swap",
            value: swap.to_string(),
            fault: "memory and swap together cannot be less than the memory limit",
        });
    }
    match memory.swappiness() {
        None | Some(0..=100 | UNSET_SWAPPINESS) => Ok(()),
        Some(value) => Err(Error::Value {
            setting: "resources.memory.swappiness",
            value: value.to_string(),
            fault: "it is 0 to 100",
        }),
    }
}

/// The deprecated kernel limit is part of the spec all the same.
#[allow(deprecated)]
fn kernel(memory: &LinuxMemory) -> Option<i64> {
    memory.kernel().filter(|limit| *limit > 0)
}

pub(super) fn is_set(memory: &LinuxMemory) -> bool {
    let limits = [
        memory.limit(),
        memory.swap(),
        memory.reservation(),
        memory.kernel_tcp(),
        kernel(memory),
    ];
    limits.into_iter().flatten().any(|limit| limit != 0)
        || memory.swappiness().is_some_and(|value| value != UNSET_SWAPPINESS)
        || memory.disable_oom_killer().is_some()
        || memory.use_hierarchy().is_some()
}

pub(super) fn set(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    // Only an empty cgroup may change this one, so it comes first. Since Linux 5.11 it is always 1.
    if let Some(hierarchical) = memory.use_hierarchy() {
        part.write("memory.use_hierarchy", flag(hierarchical))?;
    }
    set_limits(part, memory)?;
    let number = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(reservation) = number(memory.reservation()) {
        part.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(limit) = kernel(memory) {
        set_kernel(part, limit)?;
    }
    if let Some(limit) = number(memory.kernel_tcp()) {
        part.write("memory.kmem.tcp.limit_in_bytes", &limit.to_string())?;
    }
    if let Some(disable) = memory.disable_oom_killer() {
        part.write("memory.oom_control", flag(disable))?;
    }
    match memory.swappiness() {
        None | Some(UNSET_SWAPPINESS) => Ok(()),
        Some(value) => part.write("memory.swappiness", &value.to_string()),
    }
}

fn flag(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

/// Memory, and memory with swap: the former never above the latter, on the way as well.
fn set_limits(part: &Directory, memory: &LinuxMemory) -> Result<(), Error> {
    let mut values = Vec::new();
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        check_usage(part, memory, limit)?;
        values.push((LIMIT, limit.to_string()));
    }
    match memory.swap().filter(|swap| *swap != 0) {
        Some(swap) => values.push((SWAP_LIMIT, swap.to_string())),
        // Unlimited memory with a limit on memory and swap is refused by the kernel, and cannot be meant.
        None if limit == Some(-1) && part.has(SWAP_LIMIT) => values.push((SWAP_LIMIT, "-1".into())),
        None => {}
    }
    write_dependent(part, &values).map_err(|error| match (&error, limit) {
        (
            Error::Write {
                file,
                source: Errno::BUSY,
                ..
            },
            Some(limit),
        ) if file.ends_with(LIMIT) => in_use(part, limit).unwrap_or(error),
        _ => error,
    })
}

/// The limit is below what is in use, and the kernel could not reclaim enough (EBUSY).
fn in_use(part: &Directory, value: i64) -> Option<Error> {
    let usage = part.try_read("memory.usage_in_bytes").ok()?.trim_end().parse().ok()?;
    Some(Error::MemoryInUse {
        file: part.file(LIMIT),
        value,
        usage,
    })
}

/// checkBeforeUpdate: no limit below what is in use, even if the kernel could reclaim enough.
fn check_usage(part: &Directory, memory: &LinuxMemory, limit: i64) -> Result<(), Error> {
    if memory.check_before_update() != Some(true) {
        return Ok(());
    }
    match in_use(part, limit) {
        Some(error @ Error::MemoryInUse { usage, .. }) if u64::try_from(limit).is_ok_and(|limit| usage > limit) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Kernels since 5.16 take the value and forget it.
fn set_kernel(part: &Directory, limit: i64) -> Result<(), Error> {
    part.write(KERNEL_LIMIT, &limit.to_string())?;
    let now: i64 = part.read(KERNEL_LIMIT)?.trim_end().parse().unwrap_or(i64::MAX);
    if now > limit {
        return Err(Error::Value {
            setting: "resources.memory.kernel",
            value: limit.to_string(),
            fault: "this kernel no longer limits kernel memory",
        });
    }
    Ok(())
}
