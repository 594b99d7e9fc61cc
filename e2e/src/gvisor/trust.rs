//! Which runsc is run, and which is not. In each test the same file is run first, or afterwards, where nothing is wrong
//! with it: so what is refused is what was planted.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use prost_types::Any;
use sha2::{Digest as _, Sha256};

use crate::context::Ctx;
use crate::expect::{Refusal, refused};
use crate::harness::Registry;
use crate::same;
use crate::task::policy::handler;

/// A directory of this test's beside the runsc of this run: root's alone, all the way up. Removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(c: &Ctx) -> Result<Self> {
        let place = Self(installed(c)?.with_file_name(c.new_id()));
        std::fs::create_dir(&place.0).with_context(|| format!("make {}", place.0.display()))?;
        set_mode(&place.0, 0o755)?;
        std::fs::copy(installed(c)?, place.runsc()).context("copy runsc")?;
        set_mode(&place.runsc(), 0o755)?;
        Ok(place)
    }

    fn runsc(&self) -> PathBuf {
        self.0.join("runsc")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

pub fn installed(c: &Ctx) -> Result<PathBuf> {
    let node = c.tools.node.as_ref().context("the node has no configuration")?;
    Ok(node.with_file_name("runsc"))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).with_context(|| format!("chmod {}", path.display()))
}

fn options(runsc: &Path, more: &str) -> Any {
    handler(&format!("[gvisor]\npath = \"{}\"\n{more}", runsc.display()))
}

async fn works(c: &Ctx, runsc: &Path, more: &str) -> Result<()> {
    let container = c.container().args(&["echo", "fine"]).options(options(runsc, more));
    same!(container.output().await?.ok()?, "fine\n");
    Ok(())
}

async fn refusal(c: &Ctx, runsc: &Path, more: &str) -> Result<Refusal> {
    refused(c.container().waiting().options(options(runsc, more)).create().await)
}

pub fn register(t: &mut Registry) {
    t.add("a runsc that others may write to is refused", async |c| {
        let place = Place::new(c)?;
        works(c, &place.runsc(), "").await?;
        set_mode(&place.runsc(), 0o775)?;
        refusal(c, &place.runsc(), "")
            .await?
            .saying("runsc can be written by others than root (mode 0775)")?;
        Ok(())
    });
    t.add(
        "a runsc in a directory that others may write to is refused",
        async |c| {
            let place = Place::new(c)?;
            works(c, &place.runsc(), "").await?;
            set_mode(&place.0, 0o1777)?;
            refusal(c, &place.runsc(), "")
                .await?
                .saying("can be written by others than root (mode 1777)")?;
            Ok(())
        },
    );
    t.add("a runsc of another user's is refused", async |c| {
        let place = Place::new(c)?;
        works(c, &place.runsc(), "").await?;
        std::os::unix::fs::chown(place.runsc(), Some(1000), None)?;
        refusal(c, &place.runsc(), "")
            .await?
            .saying("belongs to user 1000, not to root")?;
        Ok(())
    });
    t.add("a runsc behind a symbolic link is refused", async |c| {
        let place = Place::new(c)?;
        let link = place.0.join("link");
        symlink(place.runsc(), &link)?;
        works(c, &place.runsc(), "").await?;
        refusal(c, &link, "").await?.saying("is a symbolic link")?;
        Ok(())
    });
    t.add(
        "a runsc of another hash than the one that is pinned is refused",
        async |c| {
            let place = Place::new(c)?;
            let hash: String = Sha256::digest(std::fs::read(place.runsc())?)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            works(c, &place.runsc(), &format!("sha256 = \"{hash}\"\n")).await?;
            let wrong = format!("sha256 = \"{}\"\n", "0".repeat(64));
            refusal(c, &place.runsc(), &wrong)
                .await?
                .saying(&format!("its sha256 is {hash}, and gvisor.sha256 is 0000"))?;
            Ok(())
        },
    );
    t.add("a runsc that is older than what is tested is refused", async |c| {
        let place = Place::new(c)?;
        let program = std::fs::read(place.runsc())?;
        // The release is part of the program: the same one, but of four years before.
        let (new, old) = (b"release-20260224.0", b"release-20220224.0");
        let mut aged = program.clone();
        let mut at = 0;
        while let Some(found) = aged[at..].windows(new.len()).position(|window| window == new) {
            at += found;
            aged[at..at + old.len()].copy_from_slice(old);
        }
        ensure!(aged != program, "runsc does not hold its release");
        std::fs::write(place.runsc(), aged)?;
        refusal(c, &place.runsc(), "")
            .await?
            .saying("its release 20220224 is older than 20260224")?;
        Ok(())
    });
    t.add("what is no runsc is refused, and a missing one is named", async |c| {
        let place = Place::new(c)?;
        refusal(c, &place.0.join("none"), "")
            .await?
            .saying("there is none at")?;
        std::fs::copy(&c.tools.busybox, place.runsc())?;
        refusal(c, &place.runsc(), "").await?.saying("names no release")?;
        Ok(())
    });
    t.add(
        "the runsc that was checked is the one that runs, whatever its path shows later",
        async |c| {
            let place = Place::new(c)?;
            let container = c
                .container()
                .args(&["echo", "fine"])
                .options(options(&place.runsc(), ""))
                .create()
                .await?;
            // Whoever runs by the path from here on gets a program that knows no container.
            std::fs::remove_file(place.runsc())?;
            std::fs::copy(&c.tools.busybox, place.runsc())?;
            set_mode(&place.runsc(), 0o755)?;
            container.start().await?;
            same!(container.output().await?.ok()?, "fine\n");
            refusal(c, &place.runsc(), "").await?.saying("names no release")?;
            Ok(())
        },
    );
    t.add(
        "a runsc that is deceived executes no program of the host's",
        async |c| {
            let place = Place::new(c)?;
            std::fs::remove_file(place.runsc())?;
            std::fs::copy(&c.tools.probe, place.runsc())?;
            set_mode(&place.runsc(), 0o755)?;
            // Where nothing stands against it, it does.
            let unconfined = std::process::Command::new(place.runsc()).output()?;
            let said = String::from_utf8_lossy(&unconfined.stdout);
            ensure!(said.contains("/bin/true ended with exit status: 0"), "{unconfined:?}");
            refusal(c, &place.runsc(), "")
                .await?
                .saying("/bin/true: Permission denied")?;
            Ok(())
        },
    );
    t.add("a pod's annotations cannot change how its sentry runs", async |c| {
        let container = c.container().waiting().spec(|spec| {
            spec["annotations"] = serde_json::json!({"dev.gvisor.flag.host-uds": "all"});
        });
        refused(container.create().await)?.saying("annotation dev.gvisor.flag.host-uds is not supported")?;
        Ok(())
    });
}
