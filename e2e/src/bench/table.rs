//! The figures as people read them.

use std::fmt::Write;

use super::Metric;
use super::figures::{Figures, Pace, Subject, Summary};

/// The whole report: a table for what counts, a second one for operations back to back, and how it was measured.
pub fn table(figures: &Figures, conditions: &str) -> String {
    let mut text = String::new();
    let times = figures.metrics(Pace::Paused);
    if !times.is_empty() {
        text.push_str("\nEach operation after 30 ms of quiet; medians, and 90th percentiles in brackets\n\n");
        rows(&mut text, figures, Pace::Paused);
    }
    if !figures.metrics(Pace::BackToBack).is_empty() {
        text.push_str("\nBack to back\n\n");
        rows(&mut text, figures, Pace::BackToBack);
    }
    text.push_str(
        "\nThe client's floor is as many calls of containerd's Version as the operation has calls, or `ctr version`;\n\
         the ratio is that of the medians less the floor. Memory is that of the shim and what it keeps running beside\n\
         a container, for each of 20 containers; runc is containerd's own shim with the runc of this distribution.\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{conditions}");
    text
}

fn rows(text: &mut String, figures: &Figures, pace: Pace) {
    let _ = writeln!(
        text,
        "{:<18} {:>11} {:>18} {:>18} {:>16} {:>7}  goal",
        "", "", "nucleus", "runc", "client's floor", "ratio"
    );
    for metric in figures.metrics(pace) {
        let cell = |subject| {
            figures
                .summary(metric, pace, subject)
                .map_or_else(|| "-".to_owned(), |summary| shown(metric, summary))
        };
        let ratio = figures.ratio(metric, pace);
        let _ = writeln!(
            text,
            "{:<18} {:>11} {:>18} {:>18} {:>16} {:>7}  {}",
            metric.title(),
            metric.unit(),
            cell(Subject::Nucleus),
            cell(Subject::Runc),
            cell(Subject::Client),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("1/{ratio:.1}")),
            goal(metric, ratio),
        );
    }
}

fn shown(metric: Metric, summary: Summary) -> String {
    let digits = if metric.unit() == "KiB" { 0 } else { 2 };
    format!("{:.digits$} ({:.digits$})", summary.median, summary.p90)
}

fn goal(metric: Metric, ratio: Option<f64>) -> String {
    match (metric.goal(), ratio) {
        (Some(goal), Some(ratio)) if ratio >= goal => format!("1/{goal:.0} met"),
        (Some(goal), _) => format!("1/{goal:.0} missed"),
        (None, _) => String::new(),
    }
}
