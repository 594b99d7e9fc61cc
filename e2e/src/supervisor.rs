//! The process above the tests. It is the reaper of every orphan that a run makes, so that whatever a shim leaves
//! behind stays a descendant of this run and can be told apart from the rest of the machine; what is left at the end,
//! it ends.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes;

/// Tells the process below the supervisor that it is the one.
pub const SUPERVISED: &str = "NUCLEUS_E2E_SUPERVISED";

/// Whether this process is the one below the supervisor.
pub fn is_supervised() -> bool {
    std::env::var_os(SUPERVISED).is_some()
}

/// Runs this program again below itself, reaps everything that is orphaned there, and ends with its exit code.
pub fn supervise() -> Result<ExitCode> {
    set_child_subreaper(Some(rustix::process::getpid())).context("become the reaper of this run's orphans")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let code = runtime.block_on(supervised_run())?;
    end_leftovers();
    Ok(code)
}

async fn supervised_run() -> Result<ExitCode> {
    let mut exits = signal(SignalKind::child()).context("listen for SIGCHLD")?;
    let mut interrupts = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminations = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let program = std::env::current_exe().context("find this program")?;
    let child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED, "1")
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let child = Pid::from_child(&child);
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                return Ok(status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .map_or(ExitCode::FAILURE, ExitCode::from));
            }
        }
        tokio::select! {
            _ = exits.recv() => {}
            // A terminal sends it to the whole group: the child has it already.
            _ = interrupts.recv() => {}
            _ = terminations.recv() => kill_process(child, Signal::TERM).context("pass SIGTERM on")?,
        }
    }
}

/// Kills what still runs below this process: only this run's own processes can be there.
fn end_leftovers() {
    loop {
        let left = processes::descendants(std::process::id());
        if left.is_empty() {
            return;
        }
        for process in left {
            if process.state != 'Z' {
                eprintln!("left running, killed now: {} {}", process.pid, process.command);
            }
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself in the meantime.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        // Waits for one child at least; orphans come to this process as their parents go.
        if wait(WaitOptions::empty()).is_err() {
            return;
        }
    }
}

/// Resolves when this run is to end early, with the reason.
pub async fn interrupted() -> &'static str {
    let (Ok(mut interrupts), Ok(mut terminations)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupts.recv() => "interrupted",
        _ = terminations.recv() => "told to end",
    }
}
