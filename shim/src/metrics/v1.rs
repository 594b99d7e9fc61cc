//! `io.containerd.cgroups.v1.Metrics`, filled as containerd's cgroups library fills it for the runc shim.

use containerd_shim_protos::cgroups::metrics as proto;
use protobuf::MessageField;
use runtime_core::cgroup::{Blkio, BlkioEntry, Counter, Cpu, Hugetlb, Memory, Pids, Rdma, RdmaEntry, StatsV1};

pub fn metrics(stats: &StatsV1) -> proto::Metrics {
    proto::Metrics {
        hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
        pids: field(stats.pids.as_ref(), pids),
        cpu: field(stats.cpu.as_ref(), cpu),
        memory: field(stats.memory.as_ref(), memory),
        blkio: field(stats.blkio.as_ref(), blkio),
        rdma: field(stats.rdma.as_ref(), rdma),
        memory_oom_control: field(stats.memory.as_ref(), oom),
        ..proto::Metrics::default()
    }
}

fn field<T, M>(value: Option<&T>, convert: impl Fn(&T) -> M) -> MessageField<M> {
    MessageField::from_option(value.map(convert))
}

fn hugetlb(own: &Hugetlb) -> proto::HugetlbStat {
    proto::HugetlbStat {
        usage: own.usage,
        max: own.max,
        failcnt: own.failcnt,
        pagesize: own.page_size.clone(),
        ..Default::default()
    }
}

/// No limit is 0, as it always was.
fn pids(own: &Pids) -> proto::PidsStat {
    proto::PidsStat {
        current: own.current,
        limit: own.limit.unwrap_or_default(),
        ..Default::default()
    }
}

fn cpu(own: &Cpu) -> proto::CPUStat {
    let usage = proto::CPUUsage {
        total: own.total,
        kernel: own.kernel,
        user: own.user,
        per_cpu: own.per_cpu.clone(),
        ..Default::default()
    };
    let throttling = proto::Throttle {
        periods: own.periods,
        throttled_periods: own.throttled_periods,
        throttled_time: own.throttled_time,
        ..Default::default()
    };
    proto::CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    }
}

fn memory(own: &Memory) -> proto::MemoryStat {
    let stat = |name| own.stat.get(name);
    proto::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: MessageField::some(counter(&own.usage)),
        // A counter that the kernel does not keep is there, and zero.
        swap: MessageField::some(counter(&own.swap.unwrap_or_default())),
        kernel: MessageField::some(counter(&own.kernel.unwrap_or_default())),
        kernel_tcp: MessageField::some(counter(&own.kernel_tcp.unwrap_or_default())),
        ..Default::default()
    }
}

fn counter(own: &Counter) -> proto::MemoryEntry {
    proto::MemoryEntry {
        limit: own.limit,
        usage: own.usage,
        max: own.max,
        failcnt: own.failcnt,
        ..Default::default()
    }
}

fn oom(own: &Memory) -> proto::MemoryOomControl {
    proto::MemoryOomControl {
        oom_kill_disable: own.oom.get("oom_kill_disable"),
        under_oom: own.oom.get("under_oom"),
        oom_kill: own.oom.get("oom_kill"),
        ..Default::default()
    }
}

fn blkio(own: &Blkio) -> proto::BlkIOStat {
    let table = |entries: &[BlkioEntry]| entries.iter().map(entry).collect();
    proto::BlkIOStat {
        io_service_bytes_recursive: table(&own.service_bytes),
        io_serviced_recursive: table(&own.serviced),
        io_queued_recursive: table(&own.queued),
        io_service_time_recursive: table(&own.service_time),
        io_wait_time_recursive: table(&own.wait_time),
        io_merged_recursive: table(&own.merged),
        io_time_recursive: table(&own.time),
        sectors_recursive: table(&own.sectors),
        ..Default::default()
    }
}

fn entry(own: &BlkioEntry) -> proto::BlkIOEntry {
    proto::BlkIOEntry {
        op: own.operation.clone(),
        device: own.device.clone(),
        major: own.major,
        minor: own.minor,
        value: own.value,
        ..Default::default()
    }
}

fn rdma(own: &Rdma) -> proto::RdmaStat {
    let entries = |list: &[RdmaEntry]| list.iter().map(rdma_entry).collect();
    proto::RdmaStat {
        current: entries(&own.current),
        limit: entries(&own.limit),
        ..Default::default()
    }
}

fn rdma_entry(own: &RdmaEntry) -> proto::RdmaEntry {
    proto::RdmaEntry {
        device: own.device.clone(),
        hca_handles: own.handles,
        hca_objects: own.objects,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use runtime_core::cgroup::Keyed;

    use super::*;

    #[test]
    fn cpuacct_memory_and_oom_kills_are_carried_over() {
        let counter = Counter {
            usage: 1,
            max: 2,
            failcnt: 3,
            limit: 4,
        };
        let stats = StatsV1 {
            cpu: Some(Cpu {
                total: 7,
                per_cpu: vec![3, 4],
                throttled_time: 9,
                ..Cpu::default()
            }),
            memory: Some(Memory {
                stat: Keyed::parse("rss 10\ntotal_inactive_file 11\nhierarchical_memsw_limit 12\n"),
                oom: Keyed::parse("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                usage: counter,
                ..Memory::default()
            }),
            pids: Some(Pids {
                current: 5,
                limit: None,
            }),
            ..StatsV1::default()
        };
        let metrics = metrics(&stats);
        assert_eq!(
            (metrics.cpu.usage.total, metrics.cpu.usage.per_cpu.as_slice()),
            (7, [3, 4].as_slice())
        );
        assert_eq!(metrics.cpu.throttling.throttled_time, 9);
        let memory = &metrics.memory;
        assert_eq!(
            (memory.rss, memory.total_inactive_file, memory.hierarchical_swap_limit),
            (10, 11, 12)
        );
        assert_eq!(
            (
                memory.usage.usage,
                memory.usage.limit,
                memory.usage.max,
                memory.usage.failcnt
            ),
            (1, 4, 2, 3)
        );
        assert!(memory.swap.is_some());
        assert_eq!(metrics.memory_oom_control.oom_kill, 2);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (5, 0));
        assert!(metrics.blkio.is_none() && metrics.rdma.is_none());
    }
}
