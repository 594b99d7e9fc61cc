//! One run of critest, Kubernetes' own tests of a CRI runtime.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::context::Runtime;
use crate::prepare::target;
use crate::yardstick::{Report, TestResult, Verdict};

use super::daemon::CriDaemon;
use super::limits;

/// Specs of images, which are containerd's business alone and want a registry on the internet; benchmarks.
const SKIPPED: &str = "Image Manager|Image Consistency|Image Identifier|[Bb]enchmark";

/// The regular expression of exactly this name.
pub fn pattern(name: &str) -> String {
    let escaped = name.chars().flat_map(|letter| {
        let plain = letter.is_alphanumeric() || letter == ' ';
        [(!plain).then_some('\\'), Some(letter)].into_iter().flatten()
    });
    format!("{}$", escaped.collect::<String>())
}

/// Runs the specs that match one of the regular expressions, all of them where there is none, with a handler. What it
/// writes goes into a file of that name.
pub async fn run(daemon: &CriDaemon, runtime: Runtime, filter: &[String], log: &str) -> Result<Report> {
    let begun = Instant::now();
    let name = format!("{}, {}", runtime.short_name(), daemon.version.name());
    eprintln!("cri: critest with {name} …");
    let directory = daemon.directory();
    let temporary = directory.join("critest");
    std::fs::create_dir_all(&temporary).with_context(|| format!("make {}", temporary.display()))?;
    let json = temporary.join("report.json");
    let mut skipped = SKIPPED.to_owned();
    let limits = match runtime {
        Runtime::Gvisor => limits::GVISOR,
        Runtime::Sandboxed => limits::SANDBOXED,
        Runtime::Runc | Runtime::Nucleus | Runtime::Runsc => &[],
    };
    // They would wait for what does not come.
    for name in limits::names(limits) {
        skipped = format!("{skipped}|{}", pattern(name));
    }
    let mut command = daemon.launch("critest");
    command
        .args([
            "--runtime-endpoint",
            &daemon.endpoint(),
            "--image-endpoint",
            &daemon.endpoint(),
        ])
        .args(["--runtime-handler", runtime.short_name()])
        .args([
            "--ginkgo.no-color",
            "--ginkgo.timeout",
            "20m",
            "--ginkgo.skip",
            &skipped,
        ])
        .arg("--ginkgo.json-report")
        .arg(&json)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if !filter.is_empty() {
        command.args(["--ginkgo.focus", &filter.join("|")]);
    }
    let output = command.output().await.context("run critest")?;
    let log = target().join("e2e").join(log);
    std::fs::write(&log, [output.stdout, output.stderr].concat())
        .with_context(|| format!("write {}", log.display()))?;
    eprintln!(
        "cri: critest with {name}: {:.1} s, all it wrote is in {}",
        begun.elapsed().as_secs_f64(),
        log.display()
    );
    let report = read(&json).with_context(|| format!("critest ended with {}; see {}", output.status, log.display()))?;
    if report.results().next().is_none() {
        bail!("critest ran no spec that matches; see {}", log.display());
    }
    Ok(report)
}

fn read(file: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    parse(&serde_json::from_str(&text).context("read critest's report")?)
}

/// Ginkgo's JSON report: suites of specs, each with the texts of its containers and its own.
fn parse(suites: &Value) -> Result<Report> {
    let suites = suites.as_array().context("ginkgo's report is no list of suites")?;
    let specs = suites
        .iter()
        .filter_map(|suite| suite["SpecReports"].as_array())
        .flatten();
    Ok(specs.filter_map(spec).collect())
}

fn spec(spec: &Value) -> Option<(String, TestResult)> {
    if spec["LeafNodeType"] != "It" {
        return None;
    }
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let texts = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str);
    let name = texts.collect::<Vec<_>>().join(" ");
    let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
    let verdict = match spec["State"].as_str() {
        Some("passed") => Verdict::Passed,
        // What was left out by its name has nothing to say about that; what cannot run here has.
        Some("skipped") if message.is_empty() => return None,
        Some("pending") => return None,
        Some("skipped") => Verdict::Skipped,
        _ => Verdict::Failed,
    };
    Some((
        name,
        TestResult::new(verdict, message.lines().map(str::to_owned).collect()),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_as_a_pattern_matches_itself() {
        assert_eq!(pattern("[k8s.io] a+b"), r"\[k8s\.io\] a\+b$");
    }

    #[test]
    fn specs_are_told_by_their_whole_names_and_left_out_ones_do_not_count() -> Result<()> {
        let spec = |name: &str, state: &str, message: &str| {
            json!({
                "LeafNodeType": "It", "ContainerHierarchyTexts": ["[k8s.io] Pod", "runtime"], "LeafNodeText": name,
                "State": state, "Failure": {"Message": message},
            })
        };
        let report = parse(&json!([{"SpecReports": [
            {"LeafNodeType": "BeforeSuite", "State": "passed"},
            spec("runs", "passed", ""),
            spec("fails", "failed", "no such pod"),
            spec("cannot", "skipped", "AppArmor is disabled"),
            spec("may not", "skipped", ""),
        ]}]))?;
        assert_eq!(report.verdict("[k8s.io] Pod runtime runs"), Some(Verdict::Passed));
        assert_eq!(report.verdict("[k8s.io] Pod runtime fails"), Some(Verdict::Failed));
        assert_eq!(report.count(Verdict::Skipped), 1);
        assert_eq!(report.results().count(), 3);
        Ok(())
    }
}
