//! How the tests of a run ended, by name; read from what `go test -v` wrote, or put together by whoever ran them.

use std::collections::{BTreeMap, BTreeSet};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// One test's end and what it wrote.
#[derive(Clone, Debug)]
pub struct TestResult {
    pub verdict: Verdict,
    lines: Vec<String>,
}

impl TestResult {
    pub fn new(verdict: Verdict, lines: Vec<String>) -> Self {
        Self { verdict, lines }
    }

    /// What it said about its failure, indented.
    pub fn shown(&self) -> String {
        const MOST: usize = 12;
        // The client's own log goes through the test's as well, as `log.go:NN`.
        let telling = self.lines.iter().filter(|line| !line.contains("log.go:"));
        let lines: Vec<String> = telling.map(|line| format!("      {}", line.trim())).collect();
        lines[lines.len().saturating_sub(MOST)..].join("\n")
    }
}

/// All tests of a run that came to an end.
#[derive(Clone, Debug, Default)]
pub struct Report(BTreeMap<String, TestResult>);

impl FromIterator<(String, TestResult)> for Report {
    fn from_iter<I: IntoIterator<Item = (String, TestResult)>>(results: I) -> Self {
        Self(results.into_iter().collect())
    }
}

impl Report {
    /// Reads the output: `=== RUN name` and its like say whose lines follow, `--- PASS: name (0.1s)` how a test ended.
    pub fn parse(output: &str) -> Self {
        let mut report = Self::default();
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut current = String::new();
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix("=== ") {
                current = rest.split_whitespace().nth(1).unwrap_or_default().to_owned();
            } else if let Some((verdict, name)) = ended(line) {
                current = name.to_owned();
                report.0.insert(current.clone(), TestResult::new(verdict, Vec::new()));
            } else {
                lines.entry(current.clone()).or_default().push(line.to_owned());
            }
        }
        for (name, result) in &mut report.0 {
            result.lines = lines.remove(name).unwrap_or_default();
        }
        report
    }

    pub fn results(&self) -> impl Iterator<Item = (&str, &TestResult)> {
        self.0.iter().map(|(name, result)| (name.as_str(), result))
    }

    pub fn verdict(&self, test: &str) -> Option<Verdict> {
        self.0.get(test).map(|result| result.verdict)
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.0.values().filter(|result| result.verdict == verdict).count()
    }

    /// The tests that failed, without their sub-tests; but for those that failed in an earlier report as well.
    pub fn failed_but_not_in(&self, earlier: Option<&Self>) -> BTreeSet<String> {
        let failed = |report: &Self, name: &str| report.verdict(name) == Some(Verdict::Failed);
        let names = self.0.keys().filter(|name| failed(self, name));
        names
            .map(|name| name.split('/').next().unwrap_or(name).to_owned())
            .filter(|name| !earlier.is_some_and(|earlier| failed(earlier, name)))
            .collect()
    }

    /// Puts the results of a later run in the place of the same tests'.
    pub fn replace(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Tests that pass here and are not in another report at all.
    pub fn missing_in(&self, other: &Self) -> BTreeSet<String> {
        let passed = self.0.iter().filter(|(_, result)| result.verdict == Verdict::Passed);
        passed
            .map(|(name, _)| name.clone())
            .filter(|name| !other.0.contains_key(name))
            .collect()
    }
}

fn ended(line: &str) -> Option<(Verdict, &str)> {
    let rest = line.trim_start().strip_prefix("--- ")?;
    let (word, rest) = rest.split_once(": ")?;
    let verdict = match word {
        "PASS" => Verdict::Passed,
        "FAIL" => Verdict::Failed,
        "SKIP" => Verdict::Skipped,
        _ => return None,
    };
    Some((verdict, rest.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
=== RUN   TestA
=== RUN   TestA/sub
    a_test.go:10: not what was wanted
=== NAME  TestB
    b_test.go:7: later
--- FAIL: TestA (0.10s)
    --- FAIL: TestA/sub (0.05s)
--- SKIP: TestB (0.00s)
=== RUN   TestC
--- PASS: TestC (1.00s)
FAIL
";

    #[test]
    fn ends_of_tests_and_subtests_are_read_with_what_they_wrote() {
        let report = Report::parse(OUTPUT);
        assert_eq!(report.verdict("TestA/sub"), Some(Verdict::Failed));
        assert_eq!(report.verdict("TestB"), Some(Verdict::Skipped));
        assert_eq!(report.count(Verdict::Passed), 1);
        let shown: Vec<String> = report
            .results()
            .filter(|(name, _)| *name == "TestA/sub")
            .map(|(_, result)| result.shown())
            .collect();
        assert_eq!(shown, ["      a_test.go:10: not what was wanted"]);
    }

    #[test]
    fn a_later_run_takes_the_place_of_what_failed() {
        let mut report = Report::parse(OUTPUT);
        assert_eq!(
            report.failed_but_not_in(None).into_iter().collect::<Vec<_>>(),
            ["TestA"]
        );
        assert!(report.failed_but_not_in(Some(&Report::parse(OUTPUT))).is_empty());
        report.replace(Report::parse(
            "--- PASS: TestA (0.1s)\n    --- PASS: TestA/sub (0.1s)\n",
        ));
        assert!(report.failed_but_not_in(None).is_empty());
        assert_eq!(report.verdict("TestC"), Some(Verdict::Passed));
    }

    #[test]
    fn a_test_that_never_ended_is_missing() {
        let report = Report::parse(OUTPUT);
        assert_eq!(
            report.missing_in(&Report::default()).into_iter().collect::<Vec<_>>(),
            ["TestC"]
        );
    }
}
