//! The figures for people and for programs.

use serde_json::{Map, Value, json};

use crate::bench::figures::Summary;

use super::{Figures, Row, SUBJECTS, Subject};

/// Prints the table.
pub(super) fn print(figures: &Figures, conditions: &str) {
    println!("\nEach operation after 30 ms of quiet; medians, and 90th percentiles in brackets\n");
    print!("{:<34} {:>5}", "", "");
    for subject in SUBJECTS {
        print!(" {:>19}", subject.title());
    }
    println!();
    for row in &figures.rows {
        print!("{:<34} {:>5}", row.title, row.unit);
        for subject in SUBJECTS {
            print!(" {:>19}", cell(figures, *row, subject));
        }
        println!();
    }
    println!(
        "\nA pod has two containers. Memory and CPU are all that a pod has on the host: shims, sentry, gofers, \
         helpers; natively the\n\
         shim and the holders, without the containers' own processes. While CPU is measured, each container's figures \
         are asked for\n\
         each second. gVisor's own shim is built with one change: it does not ask for an OOM score that only \
         CAP_SYS_RESOURCE may set.\n\
         {conditions}"
    );
}

fn cell(figures: &Figures, row: Row, subject: Subject) -> String {
    let Some(summary) = summary(figures, row, subject) else {
        return "-".to_owned();
    };
    let digits = usize::from(row.unit != "KiB");
    format!("{:.digits$} ({:.digits$})", summary.median, summary.p90)
}

fn summary(figures: &Figures, row: Row, subject: Subject) -> Option<Summary> {
    Summary::of(figures.values.get(&(row, subject))?)
}

/// By line: its unit, and median, 90th percentile and number of samples of each subject.
pub(super) fn to_json(figures: &Figures) -> Value {
    let mut all = Map::new();
    for row in &figures.rows {
        let mut entry = Map::from_iter([("unit".to_owned(), json!(row.unit))]);
        for subject in SUBJECTS {
            let summary = summary(figures, *row, subject).unwrap_or_default();
            entry.insert(subject.key().to_owned(), summary.to_json());
        }
        all.insert(row.key.to_owned(), Value::Object(entry));
    }
    Value::Object(all)
}
