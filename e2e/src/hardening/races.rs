//! Somebody who exchanges directories for links while mounts are made (CVE-2021-30465, 2025-52881, youki 2025-54867).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::canary::{Canary, replace_by_link, root};
use super::{attacked, judge, shown};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::spec;

/// Containers, and the mounts of each that are raced for.
const CONTAINERS: usize = 21;
const MOUNTS: usize = 100;

/// A thread that exchanges two names for each other, as fast as it can, until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exchange {
    fn start(one: &Path, other: &Path) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (one, other) = (one.to_owned(), other.to_owned());
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            stop,
            rounds,
            thread: Some(thread),
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Whether a runtime that made its mount points by their names would be led to the host here.
fn naive(volume: &Path, canary: &Path) -> Result<bool> {
    for number in 0..200_000 {
        let name = format!("raced/naive{number}");
        std::fs::create_dir(volume.join(name)).ok();
        if number % 100 == 0 && canary.read_dir()?.count() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn race(c: &Ctx) -> Result<()> {
    let canary = Canary::plant(c)?;
    let victim = c.directory.join("victim");
    let root = root(c, "root")?;
    let volume = c.directory.join("volume");
    for directory in [&victim, &volume.join("raced"), &root.join("vol")] {
        std::fs::create_dir_all(directory)?;
    }
    // First against a runtime that trusts names: the race can be won.
    replace_by_link(&volume.join("link"), &victim.display().to_string())?;
    {
        let _exchange = Exchange::start(&volume.join("raced"), &volume.join("link"));
        ensure!(naive(&volume, &victim)?, "the race cannot be won even against names");
        shown(1);
    }
    // Then against ours, with the canary behind the link.
    std::fs::remove_dir_all(&volume)?;
    std::fs::create_dir_all(volume.join("raced"))?;
    replace_by_link(&volume.join("link"), &canary.directory.display().to_string())?;
    let source = canary
        .directory
        .parent()
        .context("a canary without a parent")?
        .join("source");
    std::fs::create_dir_all(&source)?;
    let exchange = Exchange::start(&volume.join("raced"), &volume.join("link"));
    for number in 0..CONTAINERS {
        let container = c.container().args(&["true"]).root_at(&root).spec(|spec| {
            let shared = volume.display().to_string();
            spec::push(spec, "/mounts", spec::mount("/vol", "bind", &shared, &["rbind", "rw"]));
            for mount in 0..MOUNTS {
                let destination = format!("/vol/raced/{number}-{mount}");
                let made = match mount % 2 {
                    0 => spec::mount(&destination, "tmpfs", "tmpfs", &["nosuid"]),
                    _ => spec::mount(&destination, "bind", &source.display().to_string(), &["bind", "ro"]),
                };
                spec::push(spec, "/mounts", made);
            }
        });
        // A mount point that was taken away is an error, and a right one.
        if let Ok(container) = container.create().await {
            container.start().await.ok();
            container.wait().await.ok();
            container.delete().await.ok();
        }
        attacked(MOUNTS);
        if canary.is_untouched().is_err() && !c.is_nucleus() {
            shown(1);
            return Ok(());
        }
        canary.is_untouched()?;
    }
    ensure!(exchange.rounds() >= 2000, "only {} exchanges", exchange.rounds());
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add(
        "no mount is led to the host by directories that become links meanwhile",
        async |c| race(c).await,
    )
    .within(180);

    t.add(
        "no proc is mounted through a directory that becomes a link meanwhile",
        async |c| {
            let canary = Canary::plant(c)?;
            let root = root(c, "root")?;
            replace_by_link(&root.join("link"), &canary.directory.display().to_string())?;
            let exchange = Exchange::start(&root.join("proc"), &root.join("link"));
            for _ in 0..40 {
                if let Ok(container) = c
                    .container()
                    .sh("cat /proc/file /proc/inner/file")
                    .root_at(&root)
                    .create()
                    .await
                {
                    if container.start().await.is_ok() {
                        judge(c, canary.is_unread(&container.output().await?))?;
                    }
                    container.kill(9).await.ok();
                    container.delete().await.ok();
                }
                attacked(1);
                judge(c, canary.is_untouched())?;
            }
            ensure!(exchange.rounds() > 0, "nothing was exchanged");
            Ok(()) as Result<()>
        },
    )
    .within(120);
}
