//! cpu: shares, bandwidth, real-time bandwidth, idle (Documentation/scheduler/sched-bwc.rst, sched-rt-group.rst).

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use rustix::io::Errno;

use super::write_dependent;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

/// MIN_SHARES and MAX_SHARES of kernel/sched/core.c: the kernel cuts silently to this range; runc refuses what is
/// outside.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(super) fn check(cpu: &LinuxCpu) -> Result<(), Error> {
    match cpu.shares() {
        None | Some(0) => Ok(()),
        Some(shares) if SHARES.contains(&shares) => Ok(()),
        Some(shares) => Err(Error::Value {
            setting: "resources.cpu.shares",
            value: shares.to_string(),
            fault: "the kernel takes 2 to 262144",
        }),
    }
}

pub(super) fn is_set(cpu: &LinuxCpu) -> bool {
    let numbers = [cpu.shares(), cpu.period(), cpu.realtime_period()];
    let signed = [cpu.quota(), cpu.realtime_runtime()];
    numbers.into_iter().flatten().any(|value| value != 0)
        || signed.into_iter().flatten().any(|value| value != 0)
        || cpu.burst().is_some()
        || cpu.idle().is_some()
}

pub(super) fn set(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    set_shares(part, cpu)?;
    let unsigned = |value: Option<u64>| value.filter(|value| *value != 0).map(|value| value.to_string());
    let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|value| value.to_string());
    let given = |values: Vec<(&'static str, Option<String>)>| -> Vec<(&'static str, String)> {
        values
            .into_iter()
            .filter_map(|(file, value)| Some((file, value?)))
            .collect()
    };
    let bandwidth = vec![
        ("cpu.cfs_period_us", unsigned(cpu.period())),
        ("cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string())),
        ("cpu.cfs_quota_us", signed(cpu.quota())),
    ];
    write_dependent(part, &given(bandwidth))?;
    let realtime = vec![
        ("cpu.rt_period_us", unsigned(cpu.realtime_period())),
        ("cpu.rt_runtime_us", signed(cpu.realtime_runtime())),
    ];
    write_dependent(part, &given(realtime))
}

/// Shares and idle: while a cgroup is idle its shares cannot be set (EINVAL).
fn set_shares(part: &Directory, cpu: &LinuxCpu) -> Result<(), Error> {
    const IDLE: &str = "cpu.idle";
    const SHARES: &str = "cpu.shares";
    if cpu.idle() == Some(0) {
        part.write(IDLE, "0")?;
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let shares = shares.to_string();
        match part.try_write(SHARES, &shares) {
            Ok(()) => {}
            Err(Errno::INVAL) if cpu.idle().is_some_and(|idle| idle != 0) => {
                part.write(IDLE, "0")?;
                part.write(SHARES, &shares)?;
            }
            Err(error) => return Err(part.write_error(SHARES, &shares, error)),
        }
    }
    match cpu.idle() {
        None | Some(0) => Ok(()),
        Some(idle) => part.write(IDLE, &idle.to_string()),
    }
}
