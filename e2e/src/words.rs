//! cgroup v2 in the words of cgroup v1, so that one behaviour is told of both.

use anyhow::{Result, bail};
use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::MessageField;

/// What cgroup v1 shows for no limit.
const NO_LIMIT: u64 = i64::MAX as u64 & !0xfff;

/// What `file` of v1 would say, out of the files of v2.
pub fn value(file: &str, read: impl Fn(&str) -> Result<String>) -> Result<String> {
    let limit = |file: &str| -> Result<u64> {
        let text = read(file)?;
        Ok(if text == "max" { NO_LIMIT } else { text.parse()? })
    };
    let word = |file: &str, index: usize| -> Result<String> {
        let text = read(file)?;
        Ok(text.split_whitespace().nth(index).unwrap_or_default().to_owned())
    };
    Ok(match file {
        "memory.limit_in_bytes" => limit("memory.max")?.to_string(),
        "memory.soft_limit_in_bytes" => limit("memory.low")?.to_string(),
        "memory.memsw.limit_in_bytes" => (limit("memory.max")? + limit("memory.swap.max")?).to_string(),
        "cpu.shares" => read("cpu.weight")?,
        "cpu.cfs_quota_us" => word("cpu.max", 0)?.replace("max", "-1"),
        "cpu.cfs_period_us" => word("cpu.max", 1)?,
        "freezer.state" => {
            let frozen = read("cgroup.events")?.lines().any(|line| line == "frozen 1");
            if frozen { "FROZEN" } else { "THAWED" }.to_owned()
        }
        "cpu.stat" | "cpuset.cpus" | "cpuset.mems" | "pids.max" => read(file)?,
        other => bail!("there is no word of cgroup v2 for {other}"),
    })
}

/// The weights that so many shares may be: by the line that runc had up to 1.3.1, and by the curve that it has since,
/// as we do.
pub fn weights(shares: u64) -> Vec<String> {
    let line = 1 + (shares - 2) * 9999 / 262_142;
    let l = (shares as f64).log2();
    let curve = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64;
    vec![line.to_string(), curve.to_string()]
}

/// Metrics of v2 as those of v1 would be; what v2 does not count is left out.
pub fn metrics(own: &v2::Metrics) -> v1::Metrics {
    let usage = v1::CPUUsage {
        total: own.cpu.usage_usec * 1000,
        user: own.cpu.user_usec * 1000,
        kernel: own.cpu.system_usec * 1000,
        ..Default::default()
    };
    let throttle = v1::Throttle {
        periods: own.cpu.nr_periods,
        throttled_periods: own.cpu.nr_throttled,
        throttled_time: own.cpu.throttled_usec * 1000,
        ..Default::default()
    };
    let entry = v1::MemoryEntry {
        usage: own.memory.usage,
        limit: own.memory.usage_limit,
        max: own.memory.max_usage,
        ..Default::default()
    };
    v1::Metrics {
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(usage),
            throttling: MessageField::some(throttle),
            ..Default::default()
        }),
        memory: MessageField::some(v1::MemoryStat {
            usage: MessageField::some(entry),
            rss: own.memory.anon,
            ..Default::default()
        }),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill: own.memory_events.oom_kill,
            ..Default::default()
        }),
        pids: MessageField::some(v1::PidsStat {
            current: own.pids.current,
            limit: own.pids.limit,
            ..Default::default()
        }),
        blkio: MessageField(own.io.as_ref().map(|_| Box::default())),
        ..Default::default()
    }
}
