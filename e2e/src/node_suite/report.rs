//! What the machine says: the lines of the test harness in it.

use crate::harness::Tally;

/// Said when everything was tried: what is missing before it was not.
pub const END: &str = "node: all tried";

/// What was said so far.
#[derive(Debug, Default)]
pub struct Report {
    tally: Tally,
    /// A failure is shown with what is indented below it, and so is one that has a second try.
    in_failure: bool,
    driver: String,
    ended: bool,
    /// What stands outside of results: why a run could not even begin.
    last: Vec<String>,
}

impl Report {
    /// Takes a line; what is to be shown of it.
    pub fn take(&mut self, line: &str) -> Option<String> {
        if self.in_failure && line.starts_with("      ") {
            return Some(line.to_owned());
        }
        self.in_failure = false;
        if let Some(driver) = line.strip_prefix("driver: ") {
            self.driver = driver.to_owned();
            return None;
        }
        if line == END {
            self.ended = true;
            return None;
        }
        let (word, rest) = line.split_once(' ').unwrap_or(("", line));
        let count = match word {
            "ok" => &mut self.tally.passed,
            "skip" => &mut self.tally.skipped,
            "FAIL" => &mut self.tally.failed,
            "again" | "note" => {
                self.in_failure = word == "again";
                return Some(format!("{word:<6}node/{}: {}", self.driver, rest.trim_start()));
            }
            _ => {
                self.last.push(line.to_owned());
                if self.last.len() > 20 {
                    self.last.remove(0);
                }
                return line.starts_with("node: ").then(|| format!("      {line}"));
            }
        };
        *count += 1;
        self.in_failure = word == "FAIL";
        let width = 6 - word.len();
        Some(format!(
            "{word}{:width$}node/{}: {}",
            "",
            self.driver,
            rest.trim_start()
        ))
    }

    /// How it ended; a machine that did not come to its end has failed, whatever it said before.
    pub fn tally(self, reason: Option<String>, console: &str) -> Tally {
        let mut tally = self.tally;
        let nothing = tally == Tally::default();
        if reason.is_some() || !self.ended || nothing {
            let reason = reason.unwrap_or_else(|| "it went off before everything was tried".to_owned());
            println!("FAIL  node/machine: {reason}");
            for line in self.last.iter().map(String::as_str).chain(console.lines()) {
                println!("      {line}");
            }
            tally.failed += 1;
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Report, Vec<String>) {
        let mut report = Report::default();
        let shown = lines.iter().filter_map(|line| report.take(line)).collect();
        (report, shown)
    }

    #[test]
    fn results_are_counted_and_told_with_their_driver() {
        let (report, shown) = read(&[
            "driver: systemd",
            "ok    pause/a (runc, 1.6.20) 1.00 s",
            "FAIL  pause/b (nucleus, 1.6.20) 2.00 s",
            "      because",
            "again pause/d (nucleus, 1.6.20)",
            "      busy",
            "ok    pause/d (nucleus, 1.6.20) 3.00 s",
            "skip  pause/c (runc, 1.6.20): reason",
            "1 passed, 1 failed, 1 skipped",
            END,
        ]);
        assert_eq!(
            shown,
            [
                "ok    node/systemd: pause/a (runc, 1.6.20) 1.00 s",
                "FAIL  node/systemd: pause/b (nucleus, 1.6.20) 2.00 s",
                "      because",
                "again node/systemd: pause/d (nucleus, 1.6.20)",
                "      busy",
                "ok    node/systemd: pause/d (nucleus, 1.6.20) 3.00 s",
                "skip  node/systemd: pause/c (runc, 1.6.20): reason",
            ]
        );
        let tally = report.tally(None, "");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (2, 1, 1));
    }

    #[test]
    fn a_machine_that_did_not_come_to_its_end_has_failed() {
        let (report, _) = read(&["ok    a/b (runc, 1.6.20) 1.00 s"]);
        assert_eq!(report.tally(None, "").failed, 1);
        let (report, _) = read(&[END]);
        assert_eq!(report.tally(None, "").failed, 1);
        let (report, _) = read(&["ok    a/b", END]);
        assert_eq!(report.tally(Some("it hangs".to_owned()), "").failed, 1);
    }
}
