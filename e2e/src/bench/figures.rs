//! Samples, and what is said about them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Metric;

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Nucleus,
    Runc,
    /// The client's own floor.
    Client,
}

impl Subject {
    pub const ALL: [Self; 3] = [Self::Nucleus, Self::Runc, Self::Client];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nucleus => "nucleus",
            Self::Runc => "runc",
            Self::Client => "client",
        }
    }
}

/// How operations follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// 30 ms of quiet before each; the figures that count.
    Paused,
    BackToBack,
}

/// A sample's median, its 90th percentile, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub p90: f64,
    pub n: usize,
}

impl Summary {
    /// Of any number of values, by the nearest rank; a median of an even number is the mean of the two in the middle.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let median = f64::midpoint(*sorted.get(n.checked_sub(1)? / 2)?, *sorted.get(n / 2)?);
        let p90 = *sorted.get((n * 9).div_ceil(10) - 1)?;
        Some(Self { median, p90, n })
    }

    pub fn to_json(self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({"median": rounded(self.median), "p90": rounded(self.p90), "n": self.n})
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<(Metric, Pace, Subject), Vec<f64>>);

impl Figures {
    pub fn add(&mut self, metric: Metric, pace: Pace, subject: Subject, value: f64) {
        self.0.entry((metric, pace, subject)).or_default().push(value);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn summary(&self, metric: Metric, pace: Pace, subject: Subject) -> Option<Summary> {
        Summary::of(self.0.get(&(metric, pace, subject))?)
    }

    /// The median less the client's own.
    pub fn net(&self, metric: Metric, pace: Pace, subject: Subject) -> Option<f64> {
        let floor = self.summary(metric, pace, Subject::Client).unwrap_or_default();
        Some((self.summary(metric, pace, subject)?.median - floor.median).max(0.0))
    }

    /// How many times more the runc shim takes, net of the client.
    pub fn ratio(&self, metric: Metric, pace: Pace) -> Option<f64> {
        let ours = self.net(metric, pace, Subject::Nucleus)?;
        let theirs = self.net(metric, pace, Subject::Runc)?;
        (ours > 0.0).then_some(theirs / ours)
    }

    /// What was measured at a pace, in the order of the JSON.
    pub fn metrics(&self, pace: Pace) -> Vec<Metric> {
        let mut found: Vec<Metric> = self.0.keys().filter(|key| key.1 == pace).map(|key| key.0).collect();
        found.dedup();
        found
    }

    /// By metric; what was measured back to back has `_back_to_back` in its name.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        for (pace, suffix) in [(Pace::Paused, ""), (Pace::BackToBack, "_back_to_back")] {
            for metric in self.metrics(pace) {
                let mut entry = Map::from_iter([("unit".to_owned(), json!(metric.unit()))]);
                for subject in Subject::ALL {
                    // The client has no part in a shim's memory: nothing to take off, of no samples.
                    let summary = self.summary(metric, pace, subject).unwrap_or_default();
                    entry.insert(subject.name().to_owned(), summary.to_json());
                }
                all.insert(format!("{}{suffix}", metric.key()), Value::Object(entry));
            }
        }
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_middle_and_the_nearest_rank_of_nine_tenths() {
        let odd: Vec<f64> = (1..=11).rev().map(f64::from).collect();
        assert_eq!(
            Summary::of(&odd),
            Some(Summary {
                median: 6.0,
                p90: 10.0,
                n: 11
            })
        );
        assert_eq!(
            Summary::of(&[2.0, 1.0]),
            Some(Summary {
                median: 1.5,
                p90: 2.0,
                n: 2
            })
        );
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_client_s_floor_is_taken_off_before_the_ratio() {
        let mut figures = Figures::default();
        for (subject, value) in [(Subject::Nucleus, 3.0), (Subject::Runc, 11.0), (Subject::Client, 1.0)] {
            figures.add(Metric::Exec, Pace::Paused, subject, value);
        }
        assert_eq!(figures.ratio(Metric::Exec, Pace::Paused), Some(5.0));
        let json = figures.to_json();
        assert_eq!(json["exec"]["unit"], "ms");
        assert_eq!(json["exec"]["client"], json!({"median": 1.0, "p90": 1.0, "n": 1}));
    }
}
