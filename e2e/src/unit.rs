//! The suite `unit`: the crates' own tests, and what keeps their code in order.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::aarch64;
use crate::harness::Tally;
use crate::prepare::{packages, root};

/// Runs cargo's own tests, clippy and rustfmt over the workspace, and what there is of it for aarch64. With a filter,
/// the parts of that name alone.
pub async fn run(filter: &[String]) -> Result<Tally> {
    let wants = |part: &str| filter.is_empty() || filter.iter().any(|words| part.contains(words.as_str()));
    let mut tally = Tally::default();
    if wants("tests") {
        // Tests that need root are ignored where cargo runs them for a developer; this suite has root.
        let mut args = vec!["test", "--workspace", "--no-fail-fast"];
        if rustix::process::geteuid().is_root() {
            args.extend(["--", "--include-ignored"]);
        }
        tally.add(counted(&cargo("tests", &args).await?));
    }
    if wants("tests") || wants("oracle") {
        tally.add(oracle().await?);
    }
    if wants("aarch64") {
        tally.add(aarch64::run().await?);
    }
    for (what, args) in [
        (
            "clippy",
            ["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"].as_slice(),
        ),
        ("rustfmt", ["fmt", "--all", "--check"].as_slice()),
    ] {
        if wants(what) {
            let ok = cargo(what, args).await?.ok;
            tally.add(Tally {
                passed: ok.into(),
                failed: (!ok).into(),
                skipped: 0,
            });
        }
    }
    Ok(tally)
}

/// Compares the compiler of system call filters with libseccomp, and prints what the comparison came to.
async fn oracle() -> Result<Tally> {
    let library = match libseccomp().await {
        Ok(library) => library,
        Err(error) => {
            println!("skip  unit/libseccomp as the oracle: there is no libseccomp to be had: {error:#}");
            return Ok(Tally {
                skipped: 1,
                ..Tally::default()
            });
        }
    };
    let args = oracle_args(&[], "oracle");
    let ran = cargo_with("libseccomp as the oracle", &args, &library).await?;
    let about = ["calls compared", "instructions, at most", "compiled in"];
    for line in ran
        .text
        .lines()
        .filter(|line| about.iter().any(|words| line.contains(words)))
    {
        println!("      {}", line.split_once(" ... ").map_or(line, |(_, line)| line));
    }
    Ok(counted(&ran))
}

/// `cargo e2e bench seccomp`: known profiles, compiled by both, in an optimised build.
pub async fn bench_seccomp() -> Result<ExitCode> {
    let library = libseccomp().await.context("libseccomp to compare with")?;
    let mut failed = false;
    for filter in ["in_fewer_instructions", "speed"] {
        let args = oracle_args(&["--profile", "quick"], filter);
        let ran = cargo_with(filter, &args, &library).await?;
        failed |= !ran.ok;
        let figures = ran
            .text
            .lines()
            .filter(|line| line.contains("compiled in") || line.contains("instructions, at most"));
        // Before the first line of a test stands its name.
        figures.for_each(|line| println!("{}", line.split_once(" ... ").map_or(line, |(_, line)| line)));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// cargo's arguments for the tests of the compiler that are called `filter`.
fn oracle_args<'a>(profile: &[&'a str], filter: &'a str) -> Vec<&'a str> {
    let mut args = vec![
        "test",
        "--package",
        "runtime-core",
        "--features",
        "oracle",
        "--test",
        "seccomp",
    ];
    args.extend(profile);
    args.extend([filter, "--", "--nocapture", "--test-threads", "1"]);
    args
}

/// The environment in which libseccomp's crates find the library: the machine's own, else the one in the distribution's
/// package, linked statically.
async fn libseccomp() -> Result<Vec<(OsString, OsString)>> {
    if Path::new("/usr/include/seccomp.h").exists() {
        return Ok(Vec::new());
    }
    let root = packages::unpacked(&["libseccomp-dev"]).await?;
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|triplet| root.join("usr/lib").join(triplet))
        .into_iter()
        .find(|directory| directory.join("libseccomp.a").exists());
    let directory = found.context("the package has no static library")?;
    Ok(vec![
        ("LIBSECCOMP_LIB_PATH".into(), directory.into()),
        ("LIBSECCOMP_LINK_TYPE".into(), "static".into()),
        // Its answer would be the shared library, which is not installed.
        ("LIBSECCOMP_NO_PKG_CONFIG".into(), "1".into()),
    ])
}

/// The tests that cargo counted; a run that failed without one has failed all the same.
pub fn counted(ran: &Ran) -> Tally {
    let mut counted = Tally::default();
    for line in ran.text.lines().filter(|line| line.starts_with("test result:")) {
        counted.passed += number_before(line, " passed");
        counted.failed += number_before(line, " failed");
        counted.skipped += number_before(line, " ignored");
    }
    if !ran.ok && counted.failed == 0 {
        counted.failed = 1;
    }
    counted
}

/// The tests that it was told to leave out.
pub fn left_out(ran: &Ran) -> usize {
    let results = ran.text.lines().filter(|line| line.starts_with("test result:"));
    results.map(|line| number_before(line, " filtered out")).sum()
}

/// How a command of cargo's ended.
pub struct Ran {
    pub ok: bool,
    text: String,
}

/// Runs a command of cargo's and says how it ended.
pub async fn cargo(what: &str, args: &[&str]) -> Result<Ran> {
    cargo_with(what, args, &[]).await
}

/// The same with more in its environment.
pub async fn cargo_with(what: &str, args: &[&str], environment: &[(OsString, OsString)]) -> Result<Ran> {
    let begun = Instant::now();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(root())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .with_context(|| format!("run cargo {}", args[0]))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let seconds = begun.elapsed().as_secs_f64();
    if output.status.success() {
        println!("ok    unit/{what} {seconds:.1} s");
    } else {
        println!("FAIL  unit/{what} {seconds:.1} s\n{}", text.trim_end());
    }
    Ok(Ran {
        ok: output.status.success(),
        text: text.into_owned(),
    })
}

fn number_before(line: &str, word: &str) -> usize {
    let before = line.split(word).next().unwrap_or_default();
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn counts_are_read_out_of_cargo_s_summary() {
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            (number_before(line, " passed"), number_before(line, " ignored")),
            (12, 3)
        );
    }
}
