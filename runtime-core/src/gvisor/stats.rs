//! What a member of a pod uses: its own cgroup counts its gofer, the rest is the sentry's, who knows whose it is.

use std::collections::HashMap;

use serde::Deserialize;

use super::Error;
use super::container::Container;
use super::spec::Role;
use crate::cgroup::Stats;

const EVENT: &str = "containerManager.Event";

/// The part of the sentry's answer that is looked at (`runsc/boot/events.go`).
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    event: Event,
    /// CPU time by container, in the sentry's own clock.
    #[serde(default, rename = "containerUsage")]
    cpu: HashMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    memory: Memory,
}

#[derive(Debug, Default, Deserialize)]
struct Memory {
    #[serde(default)]
    usage: Usage,
}

#[derive(Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    usage: u64,
}

impl Container {
    /// What it used so far. For a member: its gofer, and its share of what the sentry uses while that runs. The pod's
    /// first container stands for all of the sentry.
    pub fn stats(&self) -> Result<Stats, Error> {
        let own = self.cgroup.stats()?;
        if self.role == Role::Root || self.sandbox.has_ended() || !self.inner().started {
            return Ok(own);
        }
        let Some(cgroup) = self.sandbox.cgroup() else {
            return Ok(own);
        };
        // One that ends meanwhile has its gofer's figures left, as one that has ended.
        match self.sandbox.call::<Answer>(EVENT, &self.id) {
            Ok(answer) => Ok(with_share(own, &cgroup.stats()?, &answer, &self.id)),
            Err(error) if error.is_hung_up() || self.sandbox.has_ended() => Ok(own),
            Err(Error::Sentry { .. }) => Ok(own),
            Err(error) => Err(error),
        }
    }
}

/// Adds what the sentry did for container `id`: of its CPU time as much as of what it counted by container, and the
/// memory that it holds for it.
fn with_share(mut own: Stats, sentry: &Stats, answer: &Answer, id: &str) -> Stats {
    let mine = u128::from(answer.cpu.get(id).copied().unwrap_or_default());
    let all: u128 = answer.cpu.values().map(|time| u128::from(*time)).sum();
    let share = |time: u64| u64::try_from(u128::from(time) * mine / all.max(1)).unwrap_or(u64::MAX);
    let memory = answer.event.data.memory.usage.usage;
    match (&mut own, sentry) {
        (Stats::V1(own), Stats::V1(sentry)) => {
            if let (Some(own), Some(sentry)) = (&mut own.cpu, &sentry.cpu) {
                own.total += share(sentry.total);
                own.kernel += share(sentry.kernel);
                own.user += share(sentry.user);
                for (own, sentry) in own.per_cpu.iter_mut().zip(&sentry.per_cpu) {
                    *own += share(*sentry);
                }
            }
            if let Some(own) = &mut own.memory {
                own.usage.usage += memory;
            }
        }
        (Stats::V2(own), Stats::V2(sentry)) => {
            for name in ["usage_usec", "user_usec", "system_usec"] {
                own.cpu.add(name, share(sentry.cpu.get(name)));
            }
            own.memory_usage += memory;
        }
        // A host has one kind.
        (Stats::V1(_), Stats::V2(_)) | (Stats::V2(_), Stats::V1(_)) => {}
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Cpu, Memory as MemoryV1, StatsV1};

    fn stats(total: u64, memory: u64) -> Stats {
        let mut found = StatsV1 {
            cpu: Some(Cpu {
                total,
                ..Cpu::default()
            }),
            memory: Some(MemoryV1::default()),
            ..StatsV1::default()
        };
        if let Some(found) = &mut found.memory {
            found.usage.usage = memory;
        }
        Stats::V1(Box::new(found))
    }

    #[test]
    fn a_member_has_its_share_of_the_sentry_s_time_and_its_own_memory() {
        let text = r#"{"event": {"type": "stats", "id": "c1", "data": {"memory": {"usage": {"limit": 0, "usage": 70}}}},
            "containerUsage": {"c1": 30, "c2": 10}}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(
            with_share(stats(5, 1), &stats(400, 1000), &answer, "c1"),
            stats(305, 71)
        );
        assert_eq!(with_share(stats(5, 1), &stats(400, 1000), &answer, "c3"), stats(5, 71));
    }

    #[test]
    fn an_answer_without_figures_adds_nothing() {
        let answer: Answer = serde_json::from_str("{}").unwrap();
        assert_eq!(with_share(stats(5, 1), &stats(400, 1000), &answer, "c1"), stats(5, 1));
    }
}
