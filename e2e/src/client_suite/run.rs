//! One run of the test binary, apart from the rest of the machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::context::Runtime;
use crate::prepare::{Tools, target};
use crate::yardstick::Report;

use super::differences;
use super::registry::Registry;

/// Runs in mount and PID namespaces of its own: /run is a tmpfs that goes with them, and so does every process that the
/// tests leave behind. What is left of shims and mounts after the tests is told first, behind a mark.
const SCRIPT: &str = r#"
mount -t tmpfs e2e-client /run && mkdir /run/tmp && cd /run/tmp || exit 125
"$@"
status=$?
for directory in /proc/[0-9]*; do
    command=$(tr '\0' ' ' < "$directory/cmdline" 2>/dev/null)
    # This script has the words in its own command line.
    case $directory:$command in /proc/1:*) ;; *containerd-shim-*) echo "LEFT process $command" ;; esac
done
find /run/containerd /run/nucleus ! -type d 2>/dev/null | sed 's/^/LEFT file /'
grep -o ' /run/[^ ]*' /proc/self/mountinfo | sed 's/^/LEFT mount/'
exit $status
"#;

/// How long all tests of a run may take.
const LIMIT: &str = "-test.timeout=200s";

/// Runs the tests with a runtime and gives back how each ended, and what was left behind.
pub async fn run(
    tools: &Tools,
    binary: &Path,
    registry: &Registry,
    runtime: Runtime,
    namespace: &str,
    pattern: &str,
) -> Result<(Report, Vec<String>)> {
    let begun = Instant::now();
    eprintln!("client: containerd's client suite with {} …", runtime.name());
    let path = [&tools.containerd_2, &tools.runc, &tools.shim]
        .map(|directory| directory.display().to_string())
        .join(":");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(binary)
        .args([
            "-test.root",
            "-test.v",
            "-no-criu",
            "-no-shim-cgroup",
            LIMIT,
            "-test.run",
            pattern,
        ])
        .args((runtime == Runtime::Nucleus).then(|| format!("-test.skip={}", differences::pattern())))
        .env(
            "PATH",
            format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        )
        .env("TMPDIR", "/run/tmp")
        .env("TEST_RUNTIME", runtime.name())
        .env("E2E_REGISTRY", registry.address())
        .env("E2E_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("run unshare");
    remove_cgroups(namespace);
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = target().join(format!("e2e/client-{}.log", runtime.short_name()));
    std::fs::write(&log, format!("{text}\n{errors}")).with_context(|| format!("write {}", log.display()))?;
    eprintln!(
        "client: {}: {:.1} s, all it wrote is in {}",
        runtime.short_name(),
        begun.elapsed().as_secs_f64(),
        log.display()
    );
    let report = Report::parse(&text);
    if report.results().next().is_none() {
        let tail: Vec<&str> = errors.lines().rev().take(10).collect();
        bail!(
            "the client suite with {} ran no test ({}):\n{}",
            runtime.name(),
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    let left = text.lines().filter_map(|line| line.strip_prefix("LEFT "));
    Ok((report, left.map(str::to_owned).collect()))
}

/// Cgroups are not in any namespace of the run: what carries its name goes here, whoever left it. Their processes ended
/// with the PID namespace.
fn remove_cgroups(namespace: &str) {
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    for hierarchy in below(Path::new("/sys/fs/cgroup")) {
        for top in below(&hierarchy.path()) {
            if top.file_name().to_string_lossy().starts_with(namespace) {
                remove_tree(&top.path());
            }
        }
    }
}

fn remove_tree(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    if let Err(error) = std::fs::remove_dir(cgroup) {
        eprintln!("remove {}: {error}", cgroup.display());
    }
}
