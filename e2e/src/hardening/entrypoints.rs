//! Entrypoints that are no programs, or programs that lead somewhere: what a runtime looks at before it executes it,
//! and what the kernel then follows. `#!/proc/self/exe` (CVE-2019-5736) is in `entering`, with the loop that tries to
//! write.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::canary::{Canary, root};
use super::entering::{digests, runtime_s_binaries};
use super::{attacked, shown};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::same;

/// An ELF file (elf(5)) of this machine's own kind that asks for `loader` and has nothing else to load.
fn elf(loader: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const ENTRY: u64 = 56;
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_DYN, the machine, version 1, no entry point.
    file.extend([3, 0]);
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for number in [0, HEADER, 0_u64] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for number in [HEADER as u16, ENTRY as u16, 2, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    let (at, length) = (HEADER + 2 * ENTRY, loader.len() as u64 + 1);
    // PT_INTERP, then PT_LOAD of the whole file; both readable alone.
    for (kind, offset, length, alignment) in [(3_u32, at, length, 1), (1, 0, at + length, 4096_u64)] {
        file.extend(kind.to_le_bytes());
        file.extend(4_u32.to_le_bytes());
        for number in [offset, offset, offset, length, length, alignment] {
            file.extend(number.to_le_bytes());
        }
    }
    file.extend(loader);
    file.push(0);
    file
}

fn executable(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Puts them all into an image; their names.
fn plant(root: &Path, canary: &Canary, probe: &Path) -> Result<Vec<&'static str>> {
    let at = |name: &str| root.join("bin").join(name);
    let host = canary.file();
    let host = host.display();
    let device = makedev(10, 203);
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("device", FileType::CharacterDevice, device),
    ] {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o777), device).with_context(|| format!("make {name}"))?;
    }
    std::fs::create_dir(at("directory"))?;
    executable(&at("huge"), b"")?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(at("huge"))?
        .set_len(1 << 30)?;
    let program = std::fs::read(probe)?;
    let long = format!("#!/{}\n", "x".repeat(4000));
    let of_host = format!("#!{host}\n");
    for (name, content) in [
        ("empty", b"".as_slice()),
        ("text", b"echo not a program\n"),
        ("short-elf", program.get(..40).unwrap_or_default()),
        ("cut-elf", program.get(..4096).unwrap_or_default()),
        ("no-interpreter", b"#!\n"),
        ("recursive", b"#!/bin/recursive\n"),
        ("of-host", of_host.as_bytes()),
        ("of-fifo", b"#!/bin/fifo\n"),
        ("of-descriptor", b"#!/proc/self/fd/5\n"),
        ("of-init", b"#!/proc/1/exe\n"),
        ("long", long.as_bytes()),
    ] {
        executable(&at(name), content)?;
    }
    let long = "/x".repeat(2040);
    let loaders = [
        ("loader-runtime", "/proc/self/exe".to_owned()),
        ("loader-init", "/proc/1/exe".to_owned()),
        ("loader-descriptor", "/proc/self/fd/5".to_owned()),
        ("loader-host", host.to_string()),
        ("loader-up", format!("../../../../../../../..{host}")),
        ("loader-itself", "/bin/loader-itself".to_owned()),
        ("loader-fifo", "/bin/fifo".to_owned()),
        ("loader-device", "/bin/device".to_owned()),
        ("loader-directory", "/bin".to_owned()),
        ("loader-missing", "/no/such/loader".to_owned()),
        ("loader-loop", "/bin/loop".to_owned()),
        ("loader-long", long),
    ];
    for (name, loader) in &loaders {
        executable(&at(name), &elf(loader.as_bytes()))?;
    }
    let links = [
        ("loop", "loop2".to_owned()),
        ("loop2", "/bin/loop".to_owned()),
        ("dangling", "/no/such/program".to_owned()),
        ("link-host", host.to_string()),
        ("link-up", format!("../../../../../../../..{host}")),
        ("link-init", "/proc/1/exe".to_owned()),
        ("link-descriptor", "/proc/self/fd/5".to_owned()),
    ];
    for (name, target) in &links {
        symlink(target, at(name)).with_context(|| format!("link {name}"))?;
    }
    let mut names = vec![
        "fifo",
        "socket",
        "device",
        "directory",
        "huge",
        "empty",
        "text",
        "short-elf",
        "cut-elf",
        "no-interpreter",
        "recursive",
        "of-host",
        "of-fifo",
        "of-descriptor",
        "of-init",
        "long",
    ];
    names.extend(loaders.iter().map(|(name, _)| *name));
    names.extend(links.iter().map(|(name, _)| *name));
    Ok(names)
}

async fn entrypoints(c: &Ctx) -> Result<()> {
    let binaries = runtime_s_binaries(c);
    let before = digests(&binaries)?;
    let canary = Canary::plant(c)?;
    let root = root(c, "root")?;
    let names = plant(&root, &canary, &c.tools.probe)?;
    let container = c.container().waiting().root_at(&root).start().await?;
    for name in names {
        let program = format!("/bin/{name}");
        // An error, or an end of its own: never a wait, and nothing of the host's.
        if let Ok(container) = c.container().args(&[&program]).root_at(&root).create().await {
            if container.start().await.is_ok() {
                let output = container.output().await.with_context(|| name.to_owned())?;
                canary.is_unread(&output)?;
            }
            container.kill(9).await.ok();
            container.delete().await.ok();
        }
        if let Ok(output) = container.exec(&[&program]).output().await {
            canary.is_unread(&output).with_context(|| name.to_owned())?;
        }
        attacked(2);
    }
    same!(
        container.sh("echo fine").await?.stdout,
        "fine\n",
        "an exec after all of them"
    );
    ensure!(digests(&binaries)? == before, "the runtime's binary was changed");
    canary.is_untouched()
}

pub fn register(t: &mut Registry) {
    t.add(
        "what is no program, or leads elsewhere, is an error or ends, for init and for an exec",
        entrypoints_of,
    )
    .within(180);

    t.add(
        "a program's loader is the container's own, wherever its name leads",
        async |c| {
            // The same file with a loader that is there: what the kernel loads by that name is executed.
            let root = root(c, "root")?;
            let canary = Canary::plant(c)?;
            let host = canary.directory.join("inner/loader");
            let place = root.join(host.strip_prefix("/")?);
            std::fs::create_dir_all(place.parent().context("no directory")?)?;
            std::fs::copy(&c.tools.busybox, &place)?;
            executable(&root.join("bin/odd"), &elf(host.display().to_string().as_bytes()))?;
            for runs in [true, false] {
                if !runs {
                    std::fs::remove_file(&place)?;
                }
                let said = match c.container().args(&["/bin/odd"]).root_at(&root).output().await {
                    Ok(output) => output.stdout + &output.stderr,
                    Err(error) => format!("{error:#}"),
                };
                let is_missing = said.to_lowercase().contains("no such file");
                same!(is_missing, !runs, "the loader is looked for in the container");
                if runs { shown(1) } else { attacked(1) }
            }
            canary.is_untouched()
        },
    );
}

async fn entrypoints_of(c: &Ctx) -> Result<()> {
    entrypoints(c).await
}
