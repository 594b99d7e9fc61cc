//! The product for aarch64: clippy and a build. Compiler and C library are Debian's packages, unpacked beside us, and so is the
//! emulator of programs with which its tests are to run.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::harness::Tally;
use crate::prepare::binaries::add_target;
use crate::prepare::programs::{self, Programs};
use crate::prepare::target;
use crate::unit::{cargo, cargo_with};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"];
const PRODUCT: [&str; 4] = ["runtime-core", "shim", "cli", "installer"];

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
    // What of them the emulator can run is not known yet.
    println!("skip  unit/tests for {TARGET}: not tried under qemu-user so far");
    tally.skipped += 1;
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
    // A sysroot, since the C library names its parts by their full paths. The compiler's own libraries are for it alone:
    // rustc, which starts it, must not find them.
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
        (variable("LINKER").into(), script(&home.join("link"), &link)?),
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
