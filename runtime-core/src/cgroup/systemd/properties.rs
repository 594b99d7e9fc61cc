//! Limits as properties of a unit: pure. What systemd knows, it writes again on a daemon-reload; what it does not know,
//! it would write its own idea of.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::message::{Property, Value};
use crate::cgroup::Error;
use crate::cgroup::device_rules::{Rule, letters};
use crate::cgroup::v2::settings::Setting;

/// systemd counts a quota in whole percents of a processor's time.
const PERCENT: u64 = 10_000;
const SECOND: u64 = 1_000_000;

/// What every scope has, whatever its limits: the cgroup is the container's own, and nothing of it stays when it ends.
pub(super) fn of_scope(slice: &str, description: &str, member: u32) -> Vec<Property> {
    vec![
        ("Description", Value::Text(description.to_owned())),
        ("Slice", Value::Text(slice.to_owned())),
        ("Delegate", Value::Bool(true)),
        ("PIDs", Value::Numbers(vec![member])),
        ("DefaultDependencies", Value::Bool(false)),
        // A scope that failed (an OOM kill is enough) would stay, and its name with it.
        ("CollectMode", Value::Text("inactive-or-failed".into())),
        ("CPUAccounting", Value::Bool(true)),
        ("MemoryAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
        // Else it has DefaultTasksMax, a part of what the host can have. A limit of the container's comes after it.
        ("TasksMax", Value::U64(u64::MAX)),
    ]
}

/// The same limits that are written into the files of cgroup v2.
pub(in crate::cgroup) fn of_v2(settings: &[Setting]) -> Vec<Property> {
    let mut properties: Vec<Property> = Vec::new();
    for setting in settings {
        let number = || match setting.value.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        };
        let numbered = |name| number().map(|number| vec![(name, Value::U64(number))]);
        let listed = |name| cpu_mask(&setting.value).map(|mask| vec![(name, Value::Bytes(mask))]);
        let found = match setting.file.as_str() {
            "cpu.weight" => numbered("CPUWeight"),
            "cpu.max" => quota_and_period(&setting.value),
            "cpuset.cpus" => listed("AllowedCPUs"),
            "cpuset.mems" => listed("AllowedMemoryNodes"),
            "memory.max" => numbered("MemoryMax"),
            "memory.high" => numbered("MemoryHigh"),
            "memory.low" => numbered("MemoryLow"),
            "memory.min" => numbered("MemoryMin"),
            "memory.swap.max" => numbered("MemorySwapMax"),
            "pids.max" => numbered("TasksMax"),
            _ => None,
        };
        // The last word counts, as in the files.
        for property in found.unwrap_or_default() {
            properties.retain(|(name, _)| *name != property.0);
            properties.push(property);
        }
    }
    properties
}

fn quota_and_period(value: &str) -> Option<Vec<Property>> {
    let (quota, period) = value.split_once(' ')?;
    let period: u64 = period.trim().parse().ok()?;
    let quota = match quota {
        "max" => u64::MAX,
        quota => per_second(quota.parse().ok()?, period)?,
    };
    Some(vec![
        ("CPUQuotaPeriodUSec", Value::U64(period)),
        ("CPUQuotaPerSecUSec", Value::U64(quota)),
    ])
}

/// Rounded up: to be held to less than what was asked for would be wrong, and the exact number is written into the
/// file.
fn per_second(quota: u64, period: u64) -> Option<u64> {
    let each = quota.checked_mul(SECOND)?.checked_div(period)?;
    Some(each.div_ceil(PERCENT).checked_mul(PERCENT)?.max(PERCENT))
}

/// `0-2,5` as systemd's mask: the lowest eight in the first byte. None for what is no list, which the file will refuse.
fn cpu_mask(list: &str) -> Option<Vec<u8>> {
    /// More than any kernel is built for.
    const MAX: usize = 1 << 16;
    let mut mask = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= MAX || first > last {
            return None;
        }
        for number in first..=last {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0);
            }
            mask[number / 8] |= 1 << (number % 8);
        }
    }
    Some(mask)
}

/// The limits that systemd knows on cgroup v1.
pub(in crate::cgroup) fn of_v1(resources: &LinuxResources) -> Vec<Property> {
    let mut properties: Vec<Property> = Vec::new();
    let unlimited = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            properties.push(("CPUShares", Value::U64(shares)));
        }
        let period = cpu.period().filter(|period| *period != 0);
        if let Some(period) = period {
            properties.push(("CPUQuotaPeriodUSec", Value::U64(period)));
        }
        if let Some(quota) = given(cpu.quota()) {
            let each = match u64::try_from(quota) {
                Ok(quota) => per_second(quota, period.unwrap_or(100_000)),
                Err(_) => Some(u64::MAX),
            };
            properties.extend(each.map(|each| ("CPUQuotaPerSecUSec", Value::U64(each))));
        }
    }
    if let Some(limit) = resources.memory().as_ref().and_then(|memory| given(memory.limit())) {
        properties.push(("MemoryLimit", Value::U64(unlimited(limit))));
    }
    if let Some(limit) = given(resources.pids().as_ref().map(|pids| pids.limit())) {
        properties.push(("TasksMax", Value::U64(unlimited(limit))));
    }
    let weight = resources.block_io().as_ref().and_then(|io| io.weight());
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        properties.push(("BlockIOWeight", Value::U64(weight.into())));
    }
    properties
}

/// Device rules, for cgroup v1 alone: a unit without any is allowed everything by systemd, and again at each
/// daemon-reload. On v2 systemd leaves a program that is not its own in place.
pub(in crate::cgroup) fn devices(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Property>, Error> {
    let rules = Rule::all(rules)?;
    let from = rules.iter().rposition(Rule::is_about_all);
    if from.is_some_and(|at| rules[at].allow) {
        return Ok(vec![("DevicePolicy", Value::Text("auto".into()))]);
    }
    let mut allowed: Vec<(String, String)> = Vec::new();
    for rule in &rules[from.map_or(0, |at| at + 1)..] {
        for kind in ['b', 'c']
            .into_iter()
            .filter(|kind| rule.kind.is_none_or(|own| own == *kind))
        {
            let word = if kind == 'b' { "block" } else { "char" };
            let device = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
                (Some(major), None) => format!("{word}-{major}"),
                (None, None) => format!("{word}-*"),
                // systemd has no words for it; the cgroup's own files have.
                (None, Some(_)) => continue,
            };
            let at = allowed.iter().position(|(own, _)| *own == device);
            let access = |text: &str, letter: char| text.contains(letter);
            let before = at.map_or(String::new(), |at| allowed.remove(at).1);
            let named = letters(rule.access);
            let now: String = "rwm"
                .chars()
                .filter(|letter| match rule.allow {
                    true => access(&before, *letter) || access(&named, *letter),
                    false => access(&before, *letter) && !access(&named, *letter),
                })
                .collect();
            if !now.is_empty() {
                allowed.push((device, now));
            }
        }
    }
    Ok(vec![
        ("DevicePolicy", Value::Text("strict".into())),
        ("DeviceAllow", Value::Pairs(allowed)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::v2::settings::settings;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_percents() {
        assert_eq!(per_second(50_000, 100_000), Some(500_000));
        assert_eq!(per_second(33_333, 100_000), Some(340_000));
        assert_eq!(per_second(1, 100_000), Some(10_000));
        assert_eq!(per_second(1, 0), None);
        assert_eq!(per_second(u64::MAX, 1), None);
    }

    #[test]
    fn lists_of_processors_are_masks() {
        assert_eq!(cpu_mask("0-2,9"), Some(vec![0b111, 0b10]));
        assert_eq!(cpu_mask("0\n"), Some(vec![1]));
        for text in ["a", "3-1", "0-99999999999", "1-2-3"] {
            assert_eq!(cpu_mask(text), None, "{text}");
        }
    }

    #[test]
    fn limits_of_v2_are_properties_and_the_last_word_counts() {
        let json = r#"{"cpu":{"shares":1024,"quota":25000,"period":50000,"cpus":"0"},"pids":{"limit":-1},
            "memory":{"limit":1000,"swap":3000},"unified":{"memory.max":"900","memory.high":"800","io.max":"8:0 rbps=1"}}"#;
        let settings = settings(&resources(json), "max 100000").unwrap();
        assert_eq!(
            of_v2(&settings),
            [
                ("CPUWeight", Value::U64(100)),
                ("CPUQuotaPeriodUSec", Value::U64(50_000)),
                ("CPUQuotaPerSecUSec", Value::U64(500_000)),
                ("AllowedCPUs", Value::Bytes(vec![1])),
                ("MemorySwapMax", Value::U64(2000)),
                ("TasksMax", Value::U64(u64::MAX)),
                ("MemoryHigh", Value::U64(800)),
                ("MemoryMax", Value::U64(900)),
            ]
        );
    }

    #[test]
    fn limits_of_v1_are_properties() {
        let json =
            r#"{"cpu":{"shares":512,"quota":-1},"memory":{"limit":4096},"pids":{"limit":9},"blockIO":{"weight":300}}"#;
        assert_eq!(
            of_v1(&resources(json)),
            [
                ("CPUShares", Value::U64(512)),
                ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
                ("MemoryLimit", Value::U64(4096)),
                ("TasksMax", Value::U64(9)),
                ("BlockIOWeight", Value::U64(300)),
            ]
        );
    }

    #[test]
    fn device_rules_are_properties() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"minor":1,"access":"rw"},
            {"allow":true,"type":"c","major":226,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#;
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let properties = devices(&rules).unwrap();
        assert_eq!(properties[0], ("DevicePolicy", Value::Text("strict".into())));
        let Value::Pairs(allowed) = &properties[1].1 else {
            panic!("{properties:?}")
        };
        let has = |device: &str, access: &str| allowed.contains(&(device.to_owned(), access.to_owned()));
        assert!(
            has("/dev/block/8:1", "r") && has("char-226", "rw") && has("/dev/char/1:3", "rwm"),
            "{allowed:?}"
        );
        assert!(
            has("char-*", "m") && has("block-*", "m") && has("char-136", "rwm"),
            "{allowed:?}"
        );
        let all: Vec<LinuxDeviceCgroup> = serde_json::from_str(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert_eq!(devices(&all).unwrap(), [("DevicePolicy", Value::Text("auto".into()))]);
    }
}
