//! The product for aarch64: clippy, a build, and its unit tests under qemu's emulation of single programs. Compiler, C
//! library and emulator are Debian's packages, unpacked beside us.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::harness::Tally;
use crate::prepare::binaries::add_target;
use crate::prepare::programs::{self, Programs};
use crate::prepare::target;
use crate::unit::{cargo, cargo_with, counted, left_out};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"];
const PRODUCT: [&str; 4] = ["runtime-core", "shim", "cli", "installer"];

/// What the emulator (qemu-user 7.2) does not do, by parts of the names of the tests, and why.
const NOT_EMULATED: [(&str, &str); 7] = [
    ("egress::tests::", "it has no netlink sockets of nftables"),
    (
        "hooks::tests::",
        "it has no openat2, with which a hook's file is opened",
    ),
    (
        "mounts::paths::tests::",
        "it has no openat2, with which paths are resolved",
    ),
    ("kernel::the_kernel_", "it has no filters of system calls"),
    (
        "io::tests::console::",
        "it has no TIOCGPTPEER, with which a terminal is opened",
    ),
    (
        "sys::program::tests::a_missing_program_is_an_error",
        "its vfork copies memory: an execve that failed is not heard of",
    ),
    (
        "io::tests::logger::a_program_that_cannot_be_started",
        "its vfork copies memory: an execve that failed is not heard of",
    ),
];

/// Clippy first, which needs the target's libraries alone.
pub async fn run() -> Result<Tally> {
    let mut tally = Tally::default();
    if std::env::consts::ARCH == "aarch64" {
        return Ok(tally);
    }
    if let Err(error) = add_target(TARGET).await {
        return Ok(skip("everything", &error));
    }
    let product = PRODUCT.iter().flat_map(|package| ["--package", package]);
    let clippy = ["clippy", "--target", TARGET, "--all-targets"].into_iter();
    let clippy: Vec<&str> = clippy.chain(product.clone()).chain(["--", "-Dwarnings"]).collect();
    tally.add(one(cargo(&format!("clippy for {TARGET}"), &clippy).await?.ok));

    let home = target().join("aarch64");
    let programs = match programs::fetch(&home, &PACKAGES).await {
        Ok(programs) => programs,
        Err(error) => {
            tally.add(skip("build and tests", &error));
            return Ok(tally);
        }
    };
    let environment = environment(&programs, &home)?;
    let build: Vec<&str> = ["build", "--target", TARGET]
        .into_iter()
        .chain(product.clone())
        .collect();
    let built = cargo_with(&format!("build for {TARGET}"), &build, &environment)
        .await?
        .ok;
    tally.add(one(built));
    if !built {
        return Ok(tally);
    }
    let mut tests: Vec<&str> = ["test", "--target", TARGET, "--no-fail-fast"]
        .into_iter()
        .chain(product)
        .collect();
    tests.push("--");
    for (name, reason) in NOT_EMULATED {
        println!("skip  unit/{name} for {TARGET}: {reason}");
        tests.extend(["--skip", name]);
    }
    let ran = cargo_with(&format!("tests for {TARGET}"), &tests, &environment).await?;
    tally.add(counted(&ran));
    tally.skipped += left_out(&ran);
    Ok(tally)
}

fn one(ok: bool) -> Tally {
    Tally {
        passed: ok.into(),
        failed: (!ok).into(),
        skipped: 0,
    }
}

fn skip(what: &str, error: &anyhow::Error) -> Tally {
    let text = format!("{error:#}");
    println!(
        "skip  unit/{what} for {TARGET}: {}",
        text.lines().next().unwrap_or_default()
    );
    Tally {
        skipped: 1,
        ..Tally::default()
    }
}

/// What tells cargo how to link and how to run programs of the target: a script for each.
fn environment(programs: &Programs, home: &Path) -> Result<[(OsString, OsString); 2]> {
    // A sysroot, since the C library names its parts by their full paths. The compiler's own libraries are for it
    // alone: rustc, which starts it, must not find them.
    let link = format!(
        "LD_LIBRARY_PATH='{}' exec '{}' '--sysroot={}'",
        programs.libraries(),
        programs.path("usr/bin/aarch64-linux-gnu-gcc").display(),
        programs.path("").display(),
    );
    let run = format!(
        "exec '{}' -L '{}'",
        programs.path("usr/bin/qemu-aarch64-static").display(),
        programs.path("usr/aarch64-linux-gnu").display(),
    );
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", TARGET.to_uppercase().replace('-', "_"));
    Ok([
        // Its name tells rustc how it takes arguments.
        (
            variable("LINKER").into(),
            script(&home.join("aarch64-linux-gnu-gcc"), &link)?,
        ),
        (variable("RUNNER").into(), script(&home.join("run"), &run)?),
    ])
}

fn script(path: &Path, command: &str) -> Result<OsString> {
    std::fs::write(path, format!("#!/bin/sh\n{command} \"$@\"\n"))
        .with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", path.display()))?;
    Ok(path.into())
}
