//! Mount audit: what is mounted, by the kernel's word, beside what was meant.
//!
//! Every mount that is made is noted with the kernel's number for it. At the end the container's mount table is read
//! back: each of them has to be there with its flags and private to the container unless sharing was asked for, and
//! nothing else may be, but what the host has below a bind mount's source.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags};

use crate::sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// MOUNT_ATTR_* and what mountinfo calls them (proc_pid_mountinfo(5)).
const FLAGS: [(u64, &str); 4] = [
    (MOUNT_ATTR_RDONLY, "ro"),
    (MOUNT_ATTR_NOSUID, "nosuid"),
    (MOUNT_ATTR_NODEV, "nodev"),
    (MOUNT_ATTR_NOEXEC, "noexec"),
];

/// A mount that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it is called in a report.
    pub destination: String,
    /// MOUNT_ATTR_* that it has to have.
    pub set: u64,
    /// The same for what is below it, where that comes along; None: nothing may be below it that was not made too.
    pub below: Option<u64>,
}

/// What is no difference, though it was not made by us.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// More mounts: hooks may have made them.
    pub others: bool,
    /// Mounts whose changes go out to others: the spec asks for sharing somewhere.
    pub shared: bool,
}

/// All that were made, by the kernel's numbers.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<u64, Made>);

impl Ledger {
    /// Notes the mount that `fd` refers to.
    pub fn note(&mut self, fd: impl AsFd, made: Made) -> io::Result<()> {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        self.0.insert(stat.stx_mnt_id, made);
        Ok(())
    }

    /// Adds flags to a mount that was noted, which were set on it later.
    pub fn also(&mut self, fd: impl AsFd, set: u64) -> io::Result<()> {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        if let Some(made) = self.0.get_mut(&stat.stx_mnt_id) {
            made.set |= set;
        }
        Ok(())
    }

    /// What of `table`, a mountinfo, is not as it was meant.
    pub fn differences(&self, table: &str, allowed: Allowed) -> Vec<String> {
        let table: BTreeMap<u64, Line<'_>> = table.lines().filter_map(parse).collect();
        let mut differences = Vec::new();
        for (number, made) in &self.0 {
            match table.get(number) {
                None => differences.push(format!("{}: it is not mounted any more", made.destination)),
                Some(line) => differences.extend(line.compare(&made.destination, made.set, allowed.shared)),
            }
        }
        for (number, line) in table.iter().filter(|(number, _)| !self.0.contains_key(number)) {
            match self.above(&table, *number) {
                Some(Made { below: Some(set), .. }) => {
                    differences.extend(line.compare(line.point, *set, allowed.shared));
                }
                _ if allowed.others => {}
                _ => differences.push(format!(
                    "{}: a mount of {} that nobody asked for",
                    line.point, line.kind
                )),
            }
        }
        differences
    }

    /// The nearest mount above `number` that was made.
    fn above(&self, table: &BTreeMap<u64, Line<'_>>, number: u64) -> Option<&Made> {
        let mut at = table.get(&number)?.parent;
        // A table has no circles; what is read from outside is not trusted to have none.
        for _ in 0..table.len() {
            if let Some(made) = self.0.get(&at) {
                return Some(made);
            }
            at = table.get(&at)?.parent;
        }
        None
    }
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    parent: u64,
    point: &'a str,
    options: &'a str,
    shared: bool,
    kind: &'a str,
}

impl Line<'_> {
    fn compare(&self, name: &str, set: u64, shared: bool) -> Vec<String> {
        let has = |flag: &str| self.options.split(',').any(|option| option == flag);
        let missing = FLAGS.iter().filter(|(bit, flag)| set & bit != 0 && !has(flag));
        let mut differences: Vec<String> = missing.map(|(_, flag)| format!("{name}: it is not {flag}")).collect();
        if self.shared && !shared {
            differences.push(format!("{name}: its changes reach other mounts"));
        }
        differences
    }
}

fn parse(line: &str) -> Option<(u64, Line<'_>)> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let parent = words.next()?.parse().ok()?;
    let (_device, _root) = (words.next()?, words.next()?);
    let (point, options) = (words.next()?, words.next()?);
    let mut shared = false;
    for word in words.by_ref() {
        if word == "-" {
            break;
        }
        shared |= word.starts_with("shared:");
    }
    let kind = words.next()?;
    Some((
        number,
        Line {
            parent,
            point,
            options,
            shared,
            kind,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
10 1 0:1 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a
11 10 0:2 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
12 10 0:3 /v /mnt ro,nosuid,relatime master:2 - ext4 /dev/sda rw
13 12 0:4 / /mnt/below ro,relatime - tmpfs tmpfs rw
";

    fn made(destination: &str, set: u64, below: Option<u64>) -> Made {
        Made {
            destination: destination.into(),
            set,
            below,
        }
    }

    fn ledger() -> Ledger {
        Ledger(BTreeMap::from([
            (10, made("/", 0, None)),
            (11, made("/proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, None)),
            (12, made("/mnt", MOUNT_ATTR_RDONLY, Some(MOUNT_ATTR_RDONLY))),
        ]))
    }

    #[test]
    fn a_table_that_is_as_it_was_meant_has_no_differences() {
        assert_eq!(ledger().differences(TABLE, Allowed::default()), Vec::<String>::new());
    }

    #[test]
    fn flags_that_are_missing_are_told_also_below_what_was_to_be_so_recursively() {
        let writable = TABLE
            .replace("ro,nosuid", "rw,nosuid")
            .replace("ro,relatime", "rw,relatime");
        let expected = ["/mnt: it is not ro", "/mnt/below: it is not ro"];
        assert_eq!(ledger().differences(&writable, Allowed::default()), expected);
    }

    #[test]
    fn what_nobody_asked_for_is_missing_or_shared_is_told() {
        let extra = format!("{TABLE}14 11 0:5 / /proc/sys rw - tmpfs tmpfs rw\n");
        let expected = ["/proc/sys: a mount of tmpfs that nobody asked for"];
        assert_eq!(ledger().differences(&extra, Allowed::default()), expected);
        let hooks = Allowed {
            others: true,
            ..Allowed::default()
        };
        assert!(ledger().differences(&extra, hooks).is_empty(), "hooks may");
        let lost: String = TABLE
            .lines()
            .filter(|line| !line.starts_with("11"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(
            ledger().differences(&lost, Allowed::default()),
            ["/proc: it is not mounted any more"]
        );
        let shared = TABLE.replace("noexec,relatime -", "noexec,relatime shared:7 -");
        assert_eq!(
            ledger().differences(&shared, Allowed::default()),
            ["/proc: its changes reach other mounts"]
        );
    }
}
