//! Reading what a container used from the v1 controllers. Polled every ten seconds for every container of a node, so
//! nothing is read twice.

use std::fs;

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::huge_pages::page_sizes;
use crate::cgroup::stats::{
    Blkio, BlkioEntry, Counter, Cpu, Hugetlb, Keyed, Memory, Pids, Rdma, RdmaEntry, Stats, StatsV1,
};

/// USER_HZ, fixed by the kernel's ABI on both architectures: what cpuacct.stat counts in.
const NANOSECONDS_A_TICK: u64 = 1_000_000_000 / 100;

impl V1 {
    pub fn stats(&self) -> Result<Stats, Error> {
        let main = self.main()?;
        if !main.has("") {
            return Err(Error::Gone { directory: main.full() });
        }
        let mut stats = StatsV1::default();
        if let Some(part) = self.of_controller("cpuacct") {
            read_cpu_usage(part, stats.cpu.get_or_insert_default())?;
        }
        if let Some(part) = self.of_controller("cpu") {
            read_throttling(part, stats.cpu.get_or_insert_default())?;
        }
        stats.memory = self.of_controller("memory").map(read_memory).transpose()?;
        stats.pids = self.of_controller("pids").map(read_pids).transpose()?;
        stats.blkio = self.of_controller("blkio").map(read_blkio).transpose()?;
        if let Some(part) = self.of_controller("hugetlb") {
            stats.hugetlb = page_sizes()
                .iter()
                .map(|size| read_hugetlb(part, size))
                .collect::<Result<_, _>>()?;
        }
        stats.rdma = self.of_controller("rdma").map(read_rdma).transpose()?;
        Ok(Stats::V1(Box::new(stats)))
    }
}

fn number(part: &Directory, file: &str) -> Result<u64, Error> {
    let text = part.read(file)?;
    parse_number(text.trim_end()).ok_or_else(|| Error::Content {
        file: part.file(file),
        line: text.trim_end().into(),
    })
}

/// Counters may be negative for a moment (kernel memory): that is 0.
fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| text.parse::<i64>().ok().map(|_| 0))
}

/// The sum over processors is cpuacct.usage; user and kernel time come as ticks, scaled by the kernel to the whole.
fn read_cpu_usage(part: &Directory, cpu: &mut Cpu) -> Result<(), Error> {
    let text = part.read("cpuacct.usage_percpu")?;
    let malformed = || Error::Content {
        file: part.file("cpuacct.usage_percpu"),
        line: text.clone(),
    };
    cpu.per_cpu = text
        .split_whitespace()
        .map(|word| word.parse().map_err(|_| malformed()))
        .collect::<Result<_, _>>()?;
    cpu.total = cpu.per_cpu.iter().sum();
    let stat = Keyed::parse(&part.read("cpuacct.stat")?);
    cpu.user = stat.get("user").saturating_mul(NANOSECONDS_A_TICK);
    cpu.kernel = stat.get("system").saturating_mul(NANOSECONDS_A_TICK);
    Ok(())
}

fn read_throttling(part: &Directory, cpu: &mut Cpu) -> Result<(), Error> {
    let stat = Keyed::parse(&part.read("cpu.stat")?);
    cpu.periods = stat.get("nr_periods");
    cpu.throttled_periods = stat.get("nr_throttled");
    cpu.throttled_time = stat.get("throttled_time");
    Ok(())
}

fn read_memory(part: &Directory) -> Result<Memory, Error> {
    Ok(Memory {
        stat: Keyed::parse(&part.read("memory.stat")?),
        oom: Keyed::parse(&part.read("memory.oom_control")?),
        usage: read_counter(part, "memory")?.unwrap_or_default(),
        swap: read_counter(part, "memory.memsw")?,
        kernel: read_counter(part, "memory.kmem")?,
        kernel_tcp: read_counter(part, "memory.kmem.tcp")?,
    })
}

/// None where the kernel was built or started without it.
fn read_counter(part: &Directory, prefix: &str) -> Result<Option<Counter>, Error> {
    let Some(usage) = part.read_if_there(&format!("{prefix}.usage_in_bytes"))? else {
        return Ok(None);
    };
    Ok(Some(Counter {
        usage: parse_number(usage.trim_end()).unwrap_or_default(),
        max: number(part, &format!("{prefix}.max_usage_in_bytes"))?,
        failcnt: number(part, &format!("{prefix}.failcnt"))?,
        limit: number(part, &format!("{prefix}.limit_in_bytes"))?,
    }))
}

fn read_pids(part: &Directory) -> Result<Pids, Error> {
    Ok(Pids {
        current: number(part, "pids.current")?,
        limit: parse_number(part.read("pids.max")?.trim_end()),
    })
}

fn read_hugetlb(part: &Directory, size: &str) -> Result<Hugetlb, Error> {
    Ok(Hugetlb {
        page_size: size.into(),
        usage: number(part, &format!("hugetlb.{size}.usage_in_bytes"))?,
        max: number(part, &format!("hugetlb.{size}.max_usage_in_bytes"))?,
        failcnt: number(part, &format!("hugetlb.{size}.failcnt"))?,
    })
}

fn read_rdma(part: &Directory) -> Result<Rdma, Error> {
    let entries = |file| Ok::<_, Error>(RdmaEntry::parse_all(&part.read(file)?));
    Ok(Rdma {
        current: entries("rdma.current")?,
        limit: entries("rdma.max")?,
    })
}

/// The throttling layer counts for every device; BFQ's own files only for those that it schedules, and most of them
/// only where it was built for debugging.
fn read_blkio(part: &Directory) -> Result<Blkio, Error> {
    let mut devices = None;
    let mut table = |names: &[&str]| -> Result<Option<Vec<BlkioEntry>>, Error> {
        for name in names {
            if let Some(text) = part.read_if_there(name)? {
                let malformed = |line: &str| Error::Content {
                    file: part.file(name),
                    line: line.into(),
                };
                return parse_table(&text, &mut devices).map(Some).map_err(malformed);
            }
        }
        Ok(None)
    };
    let mut blkio = Blkio {
        service_bytes: table(&[
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ])?
        .unwrap_or_default(),
        serviced: table(&["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"])?.unwrap_or_default(),
        ..Blkio::default()
    };
    // Either all of these are there or none.
    let Some(queued) = table(&["blkio.bfq.io_queued_recursive"])? else {
        return Ok(blkio);
    };
    blkio.queued = queued;
    for (name, to) in [
        ("blkio.bfq.io_service_time_recursive", &mut blkio.service_time),
        ("blkio.bfq.io_wait_time_recursive", &mut blkio.wait_time),
        ("blkio.bfq.io_merged_recursive", &mut blkio.merged),
        ("blkio.bfq.time_recursive", &mut blkio.time),
        ("blkio.bfq.sectors_recursive", &mut blkio.sectors),
    ] {
        *to = table(&[name])?.unwrap_or_default();
    }
    Ok(blkio)
}

/// Lines `major:minor [operation] value`; the last line, `Total value`, is left out. Err: the line that is none of
/// these.
fn parse_table<'a>(text: &'a str, devices: &mut Option<Devices>) -> Result<Vec<BlkioEntry>, &'a str> {
    let parse = |line: &str, devices: &mut Option<Devices>| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, operation, value) = match words[..] {
            [device, value] => (device, "", value),
            [device, operation, value] => (device, operation, value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let device = devices.get_or_insert_with(Devices::read).name(major, minor);
        Some(BlkioEntry {
            major,
            minor,
            device,
            operation: operation.into(),
            value: value.parse().ok()?,
        })
    };
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Total"));
    lines.map(|line| parse(line, devices).ok_or(line)).collect()
}

/// /proc/partitions: read where a table has a line, once a call.
struct Devices(Vec<(u64, u64, String)>);

impl Devices {
    fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/partitions").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let device = |line: &str| {
            let mut words = line.split_whitespace();
            let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((major, minor, format!("/dev/{}", words.nth(1)?)))
        };
        Self(text.lines().filter_map(device).collect())
    }

    fn name(&self, major: u64, minor: u64) -> String {
        let own = self.0.iter().find(|device| (device.0, device.1) == (major, minor));
        own.map_or_else(String::new, |device| device.2.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Option<Devices> {
        Some(Devices::parse(
            "major minor  #blocks  name\n\n 254        0  268435456 vda\n   8        1  1 sda1\n",
        ))
    }

    #[test]
    fn blkio_tables_are_read_with_and_without_operations() {
        let text = "254:0 Read 8192\n254:0 Total 8192\n7:0 Read 1\nTotal 8193\n";
        let entries = parse_table(text, &mut devices()).unwrap();
        let entry = |major, device: &str, operation: &str, value| BlkioEntry {
            major,
            minor: 0,
            device: device.into(),
            operation: operation.into(),
            value,
        };
        let expected = [
            entry(254, "/dev/vda", "Read", 8192),
            entry(254, "/dev/vda", "Total", 8192),
            entry(7, "", "Read", 1),
        ];
        assert_eq!(entries, expected);
        let sectors = parse_table("8:1 6792\n", &mut devices()).unwrap();
        assert_eq!(
            (
                sectors[0].device.as_str(),
                sectors[0].operation.as_str(),
                sectors[0].value
            ),
            ("/dev/sda1", "", 6792)
        );
    }

    #[test]
    fn a_blkio_line_that_makes_no_sense_is_named() {
        for line in ["254 Read 1", "254:0 Read x", "254:0 Read Write 1", "254:0"] {
            assert_eq!(parse_table(line, &mut devices()), Err(line));
        }
        assert_eq!(parse_table("Total 0\n", &mut None), Ok(Vec::new()));
    }

    #[test]
    fn numbers_below_zero_are_zero_and_max_is_none() {
        assert_eq!(
            [parse_number("5"), parse_number("-4096"), parse_number("max")],
            [Some(5), Some(0), None]
        );
    }
}
