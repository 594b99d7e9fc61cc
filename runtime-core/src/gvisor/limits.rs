//! Limits of a pod's containers, where one sentry does the work of them all: they hold together, as their sum.
//!
//! A container's own cgroup has its gofer alone. So the limits of memory and CPU time that every container of a pod has
//! are added up and set on the sentry's cgroup; to that of memory comes what the sentry used before the first of them.
//! Where one container has no limit, the pod has none. A sandbox whose own spec has a limit keeps that.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;
use serde_json::json;

use crate::cgroup::{self, Cgroup, Stats};

/// Microseconds to which quotas are brought, to be added: the kernel's own default.
const PERIOD: i64 = 100_000;

/// What one container may use; None is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limit {
    memory: Option<i64>,
    swap: Option<i64>,
    /// Microseconds in [`PERIOD`].
    quota: Option<i64>,
    /// Microseconds, for a change that names the quota alone.
    period: Option<i64>,
}

impl Limit {
    /// What `resources` changes: as with runc's update, what is not named stays.
    fn updated(self, resources: &LinuxResources) -> Self {
        let given = |old: Option<i64>, new: Option<i64>| match new {
            None | Some(0) => old,
            Some(limit) => (limit > 0).then_some(limit),
        };
        let memory = resources.memory().as_ref();
        let cpu = resources.cpu().as_ref();
        let period = cpu
            .and_then(|cpu| cpu.period())
            .and_then(|period| period.try_into().ok());
        let period = given(self.period, period);
        let quota = cpu.and_then(|cpu| cpu.quota()).map(|quota| match period {
            Some(period) if quota > 0 => quota.saturating_mul(PERIOD) / period,
            _ => quota,
        });
        Self {
            memory: given(self.memory, memory.and_then(|memory| memory.limit())),
            swap: given(self.swap, memory.and_then(|memory| memory.swap())),
            quota: given(self.quota, quota),
            period,
        }
    }

    fn of_all(all: impl Iterator<Item = Self> + Clone) -> Self {
        let sum = |field: fn(Self) -> Option<i64>| -> Option<i64> {
            all.clone()
                .map(field)
                .try_fold(0i64, |sum, limit| Some(sum.saturating_add(limit?)))
        };
        if all.clone().next().is_none() {
            return Self::default();
        }
        Self {
            memory: sum(|limit| limit.memory),
            swap: sum(|limit| limit.swap),
            quota: sum(|limit| limit.quota),
            period: None,
        }
    }
}

/// The limits of a pod's containers.
#[derive(Debug)]
pub struct Limits {
    cgroup: Cgroup,
    /// What the sandbox's own spec limits is not ours to change.
    own: Limit,
    /// Bytes that the sentry used before the first container that has a limit.
    base: Option<i64>,
    members: BTreeMap<String, Limit>,
    set: Limit,
}

impl Limits {
    /// Of a sandbox in this cgroup, made with these resources.
    pub fn new(cgroup: Cgroup, resources: Option<&LinuxResources>) -> Self {
        let own = resources.map_or_else(Limit::default, |resources| Limit::default().updated(resources));
        Self {
            cgroup,
            own,
            base: None,
            members: BTreeMap::new(),
            set: Limit::default(),
        }
    }

    /// The sentry's cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Takes a container's limits, or a change of them, and sets what holds for all.
    ///
    /// # Errors
    /// What the kernel refused; what was set before stays.
    pub fn update(&mut self, id: &str, resources: &LinuxResources) -> Result<(), cgroup::Error> {
        let old = self.members.get(id).copied();
        self.members
            .insert(id.to_owned(), old.unwrap_or_default().updated(resources));
        self.apply().inspect_err(|_| {
            match old {
                Some(old) => self.members.insert(id.to_owned(), old),
                None => self.members.remove(id),
            };
        })
    }

    /// Forgets a container. What it was allowed is taken back with the next one's limits: until then the sentry may
    /// hold it.
    pub fn remove(&mut self, id: &str) {
        self.members.remove(id);
    }

    fn apply(&mut self) -> Result<(), cgroup::Error> {
        let mut wanted = Limit::of_all(self.members.values().copied());
        if wanted.memory.is_some() && self.own.memory.is_none() {
            let base = match self.base {
                Some(base) => base,
                None => *self.base.insert(used(&self.cgroup.stats()?)),
            };
            wanted.memory = wanted.memory.map(|limit| limit.saturating_add(base));
            wanted.swap = wanted.swap.map(|limit| limit.saturating_add(base));
        }
        let Some(change) = change(self.own, self.set, wanted) else {
            return Ok(());
        };
        match self.cgroup.update(&change) {
            Ok(()) => self.set = wanted,
            // Less than what is used: of a container that has gone, for one. The kernel refuses it, and what was set
            // holds on.
            Err(_) if lowers(self.set.memory, wanted.memory) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn lowers(old: Option<i64>, new: Option<i64>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if new < old)
}

/// What is to be written; nothing where nothing changes. Minus one takes a limit away.
fn change(own: Limit, set: Limit, wanted: Limit) -> Option<LinuxResources> {
    let differs = |own: Option<i64>, set: Option<i64>, wanted: Option<i64>| {
        (own.is_none() && set != wanted).then(|| wanted.unwrap_or(-1))
    };
    let memory = differs(own.memory, set.memory, wanted.memory);
    let swap = differs(own.memory.or(own.swap), set.swap, wanted.swap);
    let quota = differs(own.quota, set.quota, wanted.quota);
    let mut resources = json!({});
    if let Some(limit) = memory {
        resources["memory"]["limit"] = json!(limit);
    }
    if let Some(limit) = swap {
        resources["memory"]["swap"] = json!(limit);
    }
    if let Some(quota) = quota {
        resources["cpu"] = json!({"quota": quota, "period": PERIOD});
    }
    let changes = resources.as_object().is_some_and(|resources| !resources.is_empty());
    changes.then(|| serde_json::from_value(resources).ok())?
}

/// Bytes that a cgroup uses and that the kernel would not give up for the asking.
fn used(stats: &Stats) -> i64 {
    let (usage, reclaimable) = match stats {
        Stats::V1(stats) => stats.memory.as_ref().map_or((0, 0), |memory| {
            (memory.usage.usage, memory.stat.get("total_inactive_file"))
        }),
        Stats::V2(stats) => (stats.memory_usage, stats.memory.get("inactive_file")),
    };
    i64::try_from(usage.saturating_sub(reclaimable)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(value: serde_json::Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    fn limit(value: serde_json::Value) -> Limit {
        Limit::default().updated(&resources(value))
    }

    #[test]
    fn the_limits_of_a_pod_are_the_sum_of_its_containers_and_none_where_one_has_none() {
        let one = limit(json!({"memory": {"limit": 10, "swap": 10}, "cpu": {"quota": 50_000, "period": 100_000}}));
        let two = limit(json!({"memory": {"limit": 5}, "cpu": {"quota": 10_000, "period": 10_000}}));
        let all = Limit::of_all([one, two].into_iter());
        assert_eq!((all.memory, all.swap, all.quota), (Some(15), None, Some(150_000)));
        let none = Limit::of_all([one, Limit::default()].into_iter());
        assert_eq!(none, Limit::default());
        assert_eq!(Limit::of_all(std::iter::empty()), Limit::default());
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_minus_one_takes_a_limit_away() {
        let old = limit(json!({"memory": {"limit": 10}, "cpu": {"quota": 20_000, "period": 200_000}}));
        assert_eq!(old.quota, Some(10_000));
        let quota_alone = old.updated(&resources(json!({"cpu": {"quota": 40_000}})));
        assert_eq!((quota_alone.memory, quota_alone.quota), (Some(10), Some(20_000)));
        let unlimited = old.updated(&resources(json!({"memory": {"limit": -1}, "cpu": {"quota": -1}})));
        assert_eq!((unlimited.memory, unlimited.quota), (None, None));
    }

    #[test]
    fn only_what_differs_is_written_and_nothing_that_the_sandbox_limits_itself() {
        let wanted = limit(json!({"memory": {"limit": 10}, "cpu": {"quota": 50_000, "period": 100_000}}));
        let none = Limit::default();
        let all = change(none, none, wanted).unwrap();
        assert_eq!(
            all,
            resources(json!({"memory": {"limit": 10}, "cpu": {"quota": 50_000, "period": 100_000}}))
        );
        assert_eq!(change(none, wanted, wanted), None);
        let taken_away = change(none, wanted, none).unwrap();
        assert_eq!(
            taken_away,
            resources(json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "period": 100_000}}))
        );
        let own = limit(json!({"memory": {"limit": 7}}));
        assert_eq!(change(own, none, wanted).unwrap().memory(), &None);
    }
}
