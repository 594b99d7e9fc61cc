//! Charts: one SVG for the times, one for the memory, drawn with bars and nothing else.

use std::fmt::Write;

use super::Metric;
use super::figures::{Figures, Pace, Subject};

const LEFT: f64 = 150.0;
const WIDTH: f64 = 760.0;
const BAR: f64 = 16.0;
const GROUP: f64 = 54.0;
const TOP: f64 = 56.0;

/// The charts that these figures allow: a name for the file, and the SVG.
pub fn charts(figures: &Figures) -> Vec<(&'static str, String)> {
    let times = [Metric::CreateStart, Metric::Exec, Metric::Delete, Metric::RunRm];
    let memory = [Metric::Pss, Metric::Rss];
    [
        ("times", "Milliseconds, net of the client", times.as_slice()),
        ("memory", "KiB for each of 20 idle containers", memory.as_slice()),
    ]
    .into_iter()
    .filter_map(|(name, title, metrics)| Some((name, chart(figures, title, metrics)?)))
    .collect()
}

fn chart(figures: &Figures, title: &str, metrics: &[Metric]) -> Option<String> {
    let groups: Vec<(Metric, f64, f64)> = metrics
        .iter()
        .filter_map(|&metric| {
            let net = |subject| figures.net(metric, Pace::Paused, subject);
            Some((metric, net(Subject::Nucleus)?, net(Subject::Runc)?))
        })
        .collect();
    let most = groups.iter().map(|group| group.1.max(group.2)).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let mut bars = String::new();
    let mut y = TOP;
    for (metric, ours, theirs) in groups {
        let middle = y + BAR + 5.0;
        let name = metric.title();
        // Writing to a String cannot fail.
        let _ = writeln!(
            bars,
            r#"<text x="{}" y="{middle}" text-anchor="end">{name}</text>"#,
            LEFT - 10.0
        );
        for (row, (value, colour)) in [(ours, "#2f6f4f"), (theirs, "#9aa5b1")].into_iter().enumerate() {
            let top = if row == 0 { y } else { y + BAR + 2.0 };
            let length = value / most * (WIDTH - LEFT - 80.0);
            let digits = usize::from(value < 100.0);
            let _ = writeln!(
                bars,
                r#"<rect x="{LEFT}" y="{top}" width="{length:.1}" height="{BAR}" fill="{colour}"/>
<text x="{:.1}" y="{:.1}">{value:.digits$}</text>"#,
                LEFT + length + 6.0,
                top + BAR - 4.0,
            );
        }
        y += GROUP;
    }
    Some(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{title}</text>
<rect x="{LEFT}" y="32" width="12" height="12" fill="#2f6f4f"/><text x="{}" y="43">nucleus</text>
<rect x="{}" y="32" width="12" height="12" fill="#9aa5b1"/><text x="{}" y="43">runc shim</text>
{bars}</svg>
"##,
        LEFT + 18.0,
        LEFT + 90.0,
        LEFT + 108.0,
    ))
}
