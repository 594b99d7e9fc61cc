//! Suites of other projects, run with runc's shim and with ours: what passes with the first has to pass with the
//! second, or its difference is written down with the reason.

pub mod report;

use crate::context::Runtime;
use crate::harness::Tally;

pub use report::{Report, TestResult, Verdict};

/// Failed tests up to this number are tried once more, with either runtime, and that is printed. Some race with what
/// they look at: containerd's `TestDaemonReconnectsToShimIOPipesOnRestart` reads containerd's log right after a kill,
/// and a kill that is answered in two milliseconds can be faster than containerd copies its log.
pub const MOST_AGAIN: usize = 3;

/// How one suite's tests are called and which of them are meant to differ.
pub struct Comparison {
    /// Put before each test's name.
    pub suite: &'static str,
    /// Put behind each test's name: what else tells runs apart, or nothing.
    pub place: &'static str,
    /// Why a test that passes with runc is not meant to pass with nucleus, if so.
    pub reason: fn(&str) -> Option<&'static str>,
}

impl Comparison {
    /// Tells what failed on the yardstick itself. Its own results count where nothing is compared with it.
    pub fn of_runc(&self, report: &Report, alone: bool) -> Tally {
        println!(
            "      {}{}: the runc shim: {} passed, {} failed, {} skipped",
            self.suite,
            self.place,
            report.count(Verdict::Passed),
            report.count(Verdict::Failed),
            report.count(Verdict::Skipped)
        );
        let mut tally = Tally::default();
        for (name, result) in report.results() {
            if result.verdict == Verdict::Failed {
                println!("fail  {} (runc)\n{}", self.title(name), result.shown());
            }
            tally.add(counted(result.verdict));
        }
        if alone { tally } else { Tally::default() }
    }

    /// Tells what failed and is tried once more.
    pub fn tell_again(&self, runtime: Runtime, report: &Report) {
        for (name, result) in report.results().filter(|(_, result)| result.verdict == Verdict::Failed) {
            println!(
                "again {} ({})\n{}",
                self.title(name),
                runtime.short_name(),
                result.shown()
            );
        }
    }

    /// Each test of ours, and those of the yardstick that did not come to an end here.
    pub fn compare(&self, report: &Report, yardstick: Option<&Report>) -> Tally {
        let mut tally = Tally::default();
        for (name, result) in report.results() {
            let theirs = yardstick.and_then(|yardstick| yardstick.verdict(name));
            tally.add(counted(self.judge(name, result, theirs)));
        }
        for name in yardstick.into_iter().flat_map(|yardstick| yardstick.missing_in(report)) {
            if let Some(reason) = (self.reason)(&name) {
                println!("skip  {}: {reason}", self.title(&name));
                tally.add(counted(Verdict::Skipped));
                continue;
            }
            println!(
                "FAIL  {} (nucleus)\n      it passes with the runc shim and did not come to an end here",
                self.title(&name)
            );
            tally.add(counted(Verdict::Failed));
        }
        tally
    }

    fn judge(&self, name: &str, result: &TestResult, theirs: Option<Verdict>) -> Verdict {
        let title = self.title(name);
        let reason = (self.reason)(name);
        match (result.verdict, theirs) {
            (Verdict::Passed, _) => {
                if reason.is_some() {
                    println!("note  {title} passes: it need not stand among the differences");
                }
                Verdict::Passed
            }
            (_, Some(Verdict::Failed)) => {
                println!("skip  {title}: the runc shim does not pass it on this machine either");
                Verdict::Skipped
            }
            (Verdict::Skipped, theirs) if theirs != Some(Verdict::Passed) => Verdict::Skipped,
            _ => match reason {
                Some(reason) => {
                    println!("skip  {title}: {reason}");
                    Verdict::Skipped
                }
                None => {
                    println!("FAIL  {title} (nucleus)\n{}", result.shown());
                    Verdict::Failed
                }
            },
        }
    }

    /// Counts a run that left something behind as one failed test, but for runc's, where it is only told.
    pub fn left_behind(&self, runtime: Runtime, left: &[String]) -> Tally {
        let word = if runtime == Runtime::Runc { "note" } else { "FAIL" };
        for left in left {
            println!(
                "{word}  {} ({}): {left}",
                self.title("left behind"),
                runtime.short_name()
            );
        }
        match (runtime, left.is_empty()) {
            (Runtime::Runc, _) => Tally::default(),
            (_, true) => counted(Verdict::Passed),
            (_, false) => counted(Verdict::Failed),
        }
    }

    fn title(&self, name: &str) -> String {
        format!("{}/{name}{}", self.suite, self.place)
    }
}

fn counted(verdict: Verdict) -> Tally {
    Tally {
        passed: (verdict == Verdict::Passed).into(),
        failed: (verdict == Verdict::Failed).into(),
        skipped: (verdict == Verdict::Skipped).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Comparison = Comparison {
        suite: "s",
        place: "",
        reason: |name| (name == "meant").then_some("because"),
    };

    fn report(results: &[(&str, Verdict)]) -> Report {
        results
            .iter()
            .map(|(name, verdict)| ((*name).to_owned(), TestResult::new(*verdict, Vec::new())))
            .collect()
    }

    #[test]
    fn what_runc_passes_has_to_pass_and_to_be_there() {
        let theirs = report(&[
            ("same", Verdict::Passed),
            ("worse", Verdict::Passed),
            ("gone", Verdict::Passed),
            ("skipped", Verdict::Passed),
        ]);
        let ours = report(&[
            ("same", Verdict::Passed),
            ("worse", Verdict::Failed),
            ("skipped", Verdict::Skipped),
        ]);
        let tally = PLAIN.compare(&ours, Some(&theirs));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 3, 0));
    }

    #[test]
    fn what_runc_fails_or_is_meant_to_differ_counts_as_skipped_unless_it_passes() {
        let theirs = report(&[("hard", Verdict::Failed), ("meant", Verdict::Passed)]);
        let ours = report(&[("hard", Verdict::Failed), ("meant", Verdict::Failed)]);
        let tally = PLAIN.compare(&ours, Some(&theirs));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (0, 0, 2));
    }

    #[test]
    fn a_test_that_only_we_run_has_to_pass() {
        let theirs = report(&[("more", Verdict::Skipped)]);
        let tally = PLAIN.compare(&report(&[("more", Verdict::Failed)]), Some(&theirs));
        assert_eq!(tally.failed, 1);
    }
}
