//! Reading what a container used. A file that is not there belongs to a controller that is not enabled, or to a newer
//! kernel: nothing is told of it.

use rustix::io::Errno;

use super::V2;
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::huge_pages::page_sizes;
use crate::cgroup::stats::{Hugetlb, Io, Keyed, Pids, Pressure, Rdma, RdmaEntry, Stall, Stats, StatsV2};

impl V2 {
    pub fn stats(&self) -> Result<Stats, Error> {
        let part = &self.part;
        if !self.exists() {
            return Err(Error::Gone { directory: part.full() });
        }
        let text = |file: &str| part.read_if_there(file);
        let number = |file: &str| Ok::<_, Error>(text(file)?.map_or(0, |text| parse_number(&text)));
        let keyed = |file: &str| Ok::<_, Error>(text(file)?.map(|text| Keyed::parse(&text)));
        let current = text("pids.current")?;
        let stats = StatsV2 {
            pids: match current {
                Some(current) => Some(Pids {
                    current: parse_number(&current),
                    limit: text("pids.max")?.and_then(|text| text.trim_end().parse().ok()),
                }),
                None => None,
            },
            cpu: keyed("cpu.stat")?.unwrap_or_default(),
            cpu_pressure: pressure(part, "cpu.pressure")?,
            memory: keyed("memory.stat")?.unwrap_or_default(),
            memory_usage: number("memory.current")?,
            memory_limit: number("memory.max")?,
            memory_max_usage: number("memory.peak")?,
            swap_usage: number("memory.swap.current")?,
            swap_limit: number("memory.swap.max")?,
            swap_max_usage: number("memory.swap.peak")?,
            memory_pressure: pressure(part, "memory.pressure")?,
            memory_events: keyed("memory.events")?,
            io: text("io.stat")?.map_or_else(Vec::new, |text| parse_io(&text)),
            io_pressure: pressure(part, "io.pressure")?,
            hugetlb: hugetlb(part)?,
            rdma: rdma(part)?,
        };
        Ok(Stats::V2(Box::new(stats)))
    }
}

/// `max` is the largest number.
fn parse_number(text: &str) -> u64 {
    match text.trim_end() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or_default(),
    }
}

/// None as well where the kernel was started without PSI.
fn pressure(part: &Directory, file: &str) -> Result<Option<Pressure>, Error> {
    match part.read_if_there(file) {
        Ok(text) => Ok(text.map(|text| parse_pressure(&text))),
        Err(Error::Io {
            source: Errno::OPNOTSUPP,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let mut stall = Stall::default();
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            match name {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stall)
    };
    Pressure {
        some: stall("some "),
        full: stall("full "),
    }
}

/// Lines `major:minor key=value…`; a device that was never used has no keys.
fn parse_io(text: &str) -> Vec<Io> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut io = Io {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..Io::default()
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or_default();
            match name {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.write_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        Some(io)
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(part: &Directory) -> Result<Vec<Hugetlb>, Error> {
    let mut all = Vec::new();
    for page_size in page_sizes() {
        let Some(usage) = part.read_if_there(&format!("hugetlb.{page_size}.current"))? else {
            continue;
        };
        let max = part.read_if_there(&format!("hugetlb.{page_size}.max"))?;
        let events = part.read_if_there(&format!("hugetlb.{page_size}.events"))?;
        all.push(Hugetlb {
            usage: parse_number(&usage),
            max: max.map_or(0, |text| parse_number(&text)),
            failcnt: events.map_or(0, |text| Keyed::parse(&text).get("max")),
            page_size,
        });
    }
    Ok(all)
}

fn rdma(part: &Directory) -> Result<Option<Rdma>, Error> {
    let Some(current) = part.read_if_there("rdma.current")? else {
        return Ok(None);
    };
    let limit = part.read_if_there("rdma.max")?.unwrap_or_default();
    Ok(Some(Rdma {
        current: RdmaEntry::parse_all(&current),
        limit: RdmaEntry::parse_all(&limit),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_with_and_without_full() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let read = parse_pressure(text);
        assert_eq!(
            read.some,
            Some(Stall {
                avg10: 1.5,
                avg60: 0.25,
                avg300: 0.0,
                total: 12345
            })
        );
        assert_eq!(read.full.unwrap().total, 7);
        // Kernels before 5.13 have no `full` for CPUs.
        assert_eq!(
            parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").full,
            None
        );
    }

    #[test]
    fn io_is_read_for_devices_with_and_without_use() {
        let text = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0\nnonsense\n";
        let used = Io {
            major: 254,
            minor: 0,
            read_bytes: 4096,
            write_bytes: 8192,
            reads: 1,
            writes: 2,
        };
        let unused = Io {
            major: 7,
            ..Io::default()
        };
        assert_eq!(parse_io(text), [used, unused]);
    }

    #[test]
    fn no_limit_is_the_largest_number() {
        assert_eq!([parse_number("max\n"), parse_number("5\n")], [u64::MAX, 5]);
    }
}
