//! What a container used: plain numbers, in the kernel's own units and words.

/// What a container used so far, as its host's kind of cgroup counts it.
#[derive(Debug, Clone, PartialEq)]
pub enum Stats {
    /// cgroup v1 and hybrid hosts.
    V1(Box<StatsV1>),
    /// cgroup v2 hosts.
    V2(Box<StatsV2>),
}

impl Default for Stats {
    fn default() -> Self {
        Self::V1(Box::default())
    }
}

impl Stats {
    /// Adds what another container of the same host uses of processors, memory and processes.
    pub fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::V1(sum), Self::V1(one)) => {
                if let (Some(sum), Some(one)) = (&mut sum.cpu, &one.cpu) {
                    sum.total += one.total;
                    sum.kernel += one.kernel;
                    sum.user += one.user;
                }
                if let (Some(sum), Some(one)) = (&mut sum.memory, &one.memory) {
                    sum.stat.add_all(&one.stat);
                    sum.usage.usage += one.usage.usage;
                }
                add_pids(&mut sum.pids, one.pids.as_ref());
            }
            (Self::V2(sum), Self::V2(one)) => {
                sum.cpu.add_all(&one.cpu);
                sum.memory.add_all(&one.memory);
                sum.memory_usage += one.memory_usage;
                sum.swap_usage += one.swap_usage;
                add_pids(&mut sum.pids, one.pids.as_ref());
            }
            // A host has one kind.
            _ => {}
        }
    }
}

fn add_pids(sum: &mut Option<Pids>, one: Option<&Pids>) {
    if let Some(one) = one {
        sum.get_or_insert_default().current += one.current;
    }
}

/// A file of lines `name value`: memory.stat, cpu.stat, memory.events…
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyed(Vec<(String, u64)>);

impl Keyed {
    /// Reads such a file's text; lines of another form are passed over (memory.stat of patched kernels has some).
    pub fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// The value of `name`; 0 where this kernel has no such line.
    pub fn get(&self, name: &str) -> u64 {
        self.0
            .iter()
            .find(|(own, _)| own == name)
            .map_or(0, |(_, value)| *value)
    }

    /// Adds the value of each line of `other`.
    pub fn add_all(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            match self.0.iter_mut().find(|(own, _)| own == name) {
                Some((_, value)) => *value = value.saturating_add(*more),
                None => self.0.push((name.clone(), *more)),
            }
        }
    }

    /// Adds to the value of `name`, where there is such a line.
    pub fn add(&mut self, name: &str, more: u64) {
        if let Some((_, value)) = self.0.iter_mut().find(|(own, _)| own == name) {
            *value = value.saturating_add(more);
        }
    }
}

/// Statistics of the v1 controllers. None: the controller is not mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StatsV1 {
    pub cpu: Option<Cpu>,
    pub memory: Option<Memory>,
    pub pids: Option<Pids>,
    pub blkio: Option<Blkio>,
    pub hugetlb: Vec<Hugetlb>,
    pub rdma: Option<Rdma>,
}

/// cpuacct and cpu; nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All time used.
    pub total: u64,
    /// Of it in the kernel; counted in the kernel's ticks.
    pub kernel: u64,
    /// Of it in user space.
    pub user: u64,
    /// By processor.
    pub per_cpu: Vec<u64>,
    /// Periods of the quota that went by.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next one.
    pub throttled_time: u64,
}

/// memory; bytes, where memory.stat does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// memory.stat.
    pub stat: Keyed,
    /// memory.oom_control: `oom_kill_disable`, `under_oom`, `oom_kill`.
    pub oom: Keyed,
    /// Memory.
    pub usage: Counter,
    /// Memory and swap; None where swap is not accounted.
    pub swap: Option<Counter>,
    /// The kernel's memory.
    pub kernel: Option<Counter>,
    /// Its TCP buffers.
    pub kernel_tcp: Option<Counter>,
}

/// One resource counter of the memory controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counter {
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
    pub limit: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; None: no limit.
    pub limit: Option<u64>,
}

/// blkio's tables, those below included. Without BFQ's debugging only the first two are filled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Blkio {
    pub service_bytes: Vec<BlkioEntry>,
    pub serviced: Vec<BlkioEntry>,
    pub queued: Vec<BlkioEntry>,
    pub service_time: Vec<BlkioEntry>,
    pub wait_time: Vec<BlkioEntry>,
    pub merged: Vec<BlkioEntry>,
    pub time: Vec<BlkioEntry>,
    pub sectors: Vec<BlkioEntry>,
}

/// One line of such a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// Device numbers.
    pub major: u64,
    /// Device numbers.
    pub minor: u64,
    /// `/dev/sda`; empty where the device has gone.
    pub device: String,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty in tables without.
    pub operation: String,
    /// Bytes, requests, nanoseconds, as the table is.
    pub value: u64,
}

/// Huge pages of one size; bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// `2MB`, `1GB`.
    pub page_size: String,
    /// In use now.
    pub usage: u64,
    /// v1: the most that ever was; v2: the limit.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// RDMA objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rdma {
    pub current: Vec<RdmaEntry>,
    pub limit: Vec<RdmaEntry>,
}

/// RDMA objects of one device; `u32::MAX`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RdmaEntry {
    pub device: String,
    pub handles: u32,
    pub objects: u32,
}

impl RdmaEntry {
    /// Reads rdma.current or rdma.max (Documentation/admin-guide/cgroup-v1/rdma.rst).
    pub fn parse_all(text: &str) -> Vec<Self> {
        let value = |text: &str| {
            if text == "max" {
                Some(u32::MAX)
            } else {
                text.parse().ok()
            }
        };
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let mut entry = Self {
                device: words.next()?.into(),
                ..Self::default()
            };
            for (name, number) in words.filter_map(|word| word.split_once('=')) {
                match name {
                    "hca_handle" => entry.handles = value(number)?,
                    "hca_object" => entry.objects = value(number)?,
                    _ => {}
                }
            }
            Some(entry)
        };
        text.lines().filter_map(entry).collect()
    }
}

/// Statistics of the v2 controllers, as their files have them. None: no such file.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct StatsV2 {
    pub pids: Option<Pids>,
    /// cpu.stat, microseconds.
    pub cpu: Keyed,
    pub cpu_pressure: Option<Pressure>,
    /// memory.stat.
    pub memory: Keyed,
    /// memory.current, memory.max and memory.peak; a limit of `u64::MAX` is none.
    pub memory_usage: u64,
    pub memory_limit: u64,
    pub memory_max_usage: u64,
    /// memory.swap.current, memory.swap.max and memory.swap.peak.
    pub swap_usage: u64,
    pub swap_limit: u64,
    pub swap_max_usage: u64,
    pub memory_pressure: Option<Pressure>,
    /// memory.events.
    pub memory_events: Option<Keyed>,
    pub io: Vec<Io>,
    pub io_pressure: Option<Pressure>,
    pub hugetlb: Vec<Hugetlb>,
    pub rdma: Option<Rdma>,
}

/// One line of io.stat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Io {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// A `*.pressure` file (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some were waiting.
    pub some: Option<Stall>,
    /// All were waiting.
    pub full: Option<Stall>,
}

/// Shares of time in percent over 10, 60 and 300 seconds; the total in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_file_is_read_and_odd_lines_passed_over() {
        let keyed = Keyed::parse("cache 4096\nnuma_locality 0 0 0\ntotal_rss 18446744073709551615\n\n");
        assert_eq!(
            (keyed.get("cache"), keyed.get("total_rss"), keyed.get("numa_locality")),
            (4096, u64::MAX, 0)
        );
    }

    #[test]
    fn rdma_lines_are_read_with_max() {
        let entries = RdmaEntry::parse_all("mlx4_0 hca_handle=2 hca_object=max\n");
        assert_eq!(
            entries,
            [RdmaEntry {
                device: "mlx4_0".into(),
                handles: 2,
                objects: u32::MAX
            }]
        );
    }
}
