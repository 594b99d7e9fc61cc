//! `io.containerd.cgroups.v2.Metrics`, io, huge pages and pressure included.

use containerd_shim_protos::cgroups_v2::metrics as proto;
use protobuf::MessageField;
use runtime_core::cgroup::{Hugetlb, Io, Keyed, Pids, Pressure, Rdma, RdmaEntry, Stall, StatsV2};

pub fn metrics(stats: &StatsV2) -> proto::Metrics {
    let io = proto::IOStat {
        usage: stats.io.iter().map(io).collect(),
        psi: field(stats.io_pressure.as_ref(), pressure),
        ..Default::default()
    };
    proto::Metrics {
        pids: field(stats.pids.as_ref(), pids),
        cpu: MessageField::some(cpu(stats)),
        memory: MessageField::some(memory(stats)),
        rdma: field(stats.rdma.as_ref(), rdma),
        io: MessageField::some(io),
        hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
        memory_events: field(stats.memory_events.as_ref(), memory_events),
        ..Default::default()
    }
}

fn field<T, M>(value: Option<&T>, convert: impl Fn(&T) -> M) -> MessageField<M> {
    MessageField::from_option(value.map(convert))
}

/// No limit is the largest number, unlike in v1.
fn pids(own: &Pids) -> proto::PidsStat {
    proto::PidsStat {
        current: own.current,
        limit: own.limit.unwrap_or(u64::MAX),
        ..Default::default()
    }
}

fn cpu(stats: &StatsV2) -> proto::CPUStat {
    let stat = |name| stats.cpu.get(name);
    proto::CPUStat {
        usage_usec: stat("usage_usec"),
        user_usec: stat("user_usec"),
        system_usec: stat("system_usec"),
        nr_periods: stat("nr_periods"),
        nr_throttled: stat("nr_throttled"),
        throttled_usec: stat("throttled_usec"),
        nr_bursts: stat("nr_bursts"),
        burst_usec: stat("burst_usec"),
        psi: field(stats.cpu_pressure.as_ref(), pressure),
        ..Default::default()
    }
}

fn memory(stats: &StatsV2) -> proto::MemoryStat {
    let stat = |name| stats.memory.get(name);
    // The kernel counts these two by kind of page since 5.9.
    let workingset = |event: &str| {
        let of = |kind: &str| stats.memory.get(&format!("workingset_{event}{kind}"));
        of("").max(of("_anon").saturating_add(of("_file")))
    };
    proto::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: workingset("refault"),
        workingset_activate: workingset("activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: stats.memory_usage,
        usage_limit: stats.memory_limit,
        swap_usage: stats.swap_usage,
        swap_limit: stats.swap_limit,
        max_usage: stats.memory_max_usage,
        swap_max_usage: stats.swap_max_usage,
        psi: field(stats.memory_pressure.as_ref(), pressure),
        ..Default::default()
    }
}

fn memory_events(own: &Keyed) -> proto::MemoryEvents {
    proto::MemoryEvents {
        low: own.get("low"),
        high: own.get("high"),
        max: own.get("max"),
        oom: own.get("oom"),
        oom_kill: own.get("oom_kill"),
        oom_group_kill: own.get("oom_group_kill"),
        ..Default::default()
    }
}

fn io(own: &Io) -> proto::IOEntry {
    proto::IOEntry {
        major: own.major,
        minor: own.minor,
        rbytes: own.read_bytes,
        wbytes: own.write_bytes,
        rios: own.reads,
        wios: own.writes,
        ..Default::default()
    }
}

fn hugetlb(own: &Hugetlb) -> proto::HugeTlbStat {
    proto::HugeTlbStat {
        current: own.usage,
        max: own.max,
        pagesize: own.page_size.clone(),
        failcnt: own.failcnt,
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

fn pressure(own: &Pressure) -> proto::PSIStats {
    proto::PSIStats {
        some: field(own.some.as_ref(), stall),
        full: field(own.full.as_ref(), stall),
        ..Default::default()
    }
}

fn stall(own: &Stall) -> proto::PSIData {
    proto::PSIData {
        avg10: own.avg10,
        avg60: own.avg60,
        avg300: own.avg300,
        total: own.total,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_huge_pages_pressure_and_events_are_carried_over() {
        let stall = Stall {
            avg10: 1.5,
            total: 9,
            ..Stall::default()
        };
        let stats = StatsV2 {
            io: vec![Io {
                major: 8,
                read_bytes: 4096,
                writes: 3,
                ..Io::default()
            }],
            cpu_pressure: Some(Pressure {
                some: Some(stall),
                full: None,
            }),
            memory: Keyed::parse("anon 1\nworkingset_refault_anon 2\nworkingset_refault_file 3\n"),
            memory_limit: u64::MAX,
            memory_events: Some(Keyed::parse("oom 1\noom_kill 2\n")),
            hugetlb: vec![Hugetlb {
                page_size: "2MB".into(),
                max: 5,
                ..Hugetlb::default()
            }],
            pids: Some(Pids {
                current: 1,
                limit: None,
            }),
            ..StatsV2::default()
        };
        let metrics = metrics(&stats);
        assert_eq!((metrics.io.usage[0].rbytes, metrics.io.usage[0].wios), (4096, 3));
        assert!((metrics.cpu.psi.some.avg10 - 1.5).abs() < f64::EPSILON && metrics.cpu.psi.full.is_none());
        assert_eq!(
            (
                metrics.memory.anon,
                metrics.memory.workingset_refault,
                metrics.memory.usage_limit
            ),
            (1, 5, u64::MAX)
        );
        assert_eq!(metrics.memory_events.oom_kill, 2);
        assert_eq!(
            (metrics.hugetlb[0].pagesize.as_str(), metrics.hugetlb[0].max),
            ("2MB", 5)
        );
        assert_eq!(metrics.pids.limit, u64::MAX);
    }
}
