//! The machine's life: started, listened to, ended.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout_at;

use super::image::Host;
use super::report::Report;
use super::text;
use crate::harness::Tally;

/// Everything, from power on to power off: an emulated machine beside other work is slow.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// Without a word for so long it hangs.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Runs the machine to its end and counts what it said.
pub async fn run(host: &Host, payload: &Path) -> Result<Tally> {
    let console = payload.with_file_name("console.log");
    let mut qemu = host.programs.command("usr/bin/qemu-system-x86_64");
    for firmware in host.programs.firmware() {
        qemu.arg("-L").arg(firmware);
    }
    let drive = |disk: &Path, snapshot| format!("file={},format=raw,if=virtio,snapshot={snapshot}", text(disk));
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2560",
    ])
    .arg("-kernel")
    .arg(&host.kernel)
    .arg("-initrd")
    .arg(&host.initrd)
    .args(["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1"])
    // The base stays as it is built: what is written to it goes into a temporary file.
    .args(["-drive", &drive(&host.disk, "on")])
    .args(["-drive", &drive(payload, "on")])
    .args(["-display", "none", "-no-reboot", "-nic", "none", "-monitor", "none"])
    .args(["-serial", &format!("file:{}", text(&console)), "-serial", "stdio"])
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .stderr(Stdio::inherit())
    .kill_on_drop(true);
    let begun = Instant::now();
    let mut machine = qemu.spawn().context("start qemu")?;
    let output = machine.stdout.take().context("qemu has no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut report = Report::default();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let reason = loop {
        let silent = tokio::time::Instant::now() + SILENCE;
        match timeout_at(deadline.min(silent), lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                if let Some(line) = report.take(line.trim_end_matches('\r')) {
                    println!("{line}");
                }
            }
            Ok(Ok(None)) => break None,
            Ok(Err(error)) => break Some(format!("its output cannot be read: {error}")),
            Err(_) => break Some(format!("it said nothing more after {} s", begun.elapsed().as_secs())),
        }
    };
    if reason.is_some() {
        machine.start_kill().context("end qemu")?;
    }
    machine.wait().await.context("wait for qemu")?;
    println!("      node: the machine was on for {} s", begun.elapsed().as_secs());
    let tally = report.tally(reason, &tail(&console));
    if tally.failed == 0
        && let Some(directory) = payload.parent()
    {
        std::fs::remove_dir_all(directory).with_context(|| format!("remove {}", text(directory)))?;
    }
    Ok(tally)
}

/// The kernel's last words.
fn tail(console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
