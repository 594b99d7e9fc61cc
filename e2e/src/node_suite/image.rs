//! The machine's disks: a Debian that is built once and never written to, and a small one with what is tested.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use tokio::process::Command;

use super::{home, text};
use crate::prepare::programs::{self, Programs};
use crate::prepare::{Tools, debian, step};

/// Goes up when what is built below changes: then the base is built anew.
const VERSION: u32 = 1;

const PACKAGES: [&str; 13] = [
    "linux-image-cloud-amd64",
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "containerd",
    "runc",
    "apparmor",
    "kmod",
    "iproute2",
    "procps",
    "util-linux",
    "busybox-static",
];

/// Runs what the second disk says, then the machine is done. Its words go to the second serial line: the first is the
/// kernel's.
const UNIT: &str = "\
[Unit]
Description=Tests of a container runtime
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /mnt && exec /mnt/run'
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
TimeoutStartSec=infinity
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
";

/// What has no work in a machine that lives for minutes.
const MASKED: [&str; 9] = [
    "serial-getty@ttyS0.service",
    "serial-getty@ttyS1.service",
    "getty@tty1.service",
    "containerd.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "systemd-timesyncd.service",
    "e2scrub_all.timer",
    "fstrim.timer",
];

/// What a machine is started from.
#[derive(Clone, Debug)]
pub struct Host {
    pub programs: Programs,
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The C library of the Debian in the machine.
const GLIBC: (u32, u32) = (2, 36);

/// This very program goes into the machine, and does not start with an older C library than it was linked with.
async fn check_glibc() -> Result<()> {
    let output = Command::new("ldd").arg("--version").output().await.context("run ldd")?;
    match glibc(&String::from_utf8_lossy(&output.stdout)) {
        Some(own) if own > GLIBC => Err(anyhow!(
            "the tests are linked with glibc {}.{} here, and the machine has {}.{}",
            own.0,
            own.1,
            GLIBC.0,
            GLIBC.1
        )),
        _ => Ok(()),
    }
}

/// `ldd (Debian GLIBC 2.36-9+deb12u10) 2.36`
fn glibc(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.lines().next()?.split_whitespace().last()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Builds the base unless it is there. The inner error is a reason why this host cannot have a machine; the outer one
/// is a fault of ours.
pub async fn prepare() -> Result<Result<Host, Error>> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Err(anyhow!(
            "the machine is an x86_64 one, emulated: this host is {}",
            std::env::consts::ARCH
        )));
    }
    if let Err(error) = check_glibc().await {
        return Ok(Err(error));
    }
    let home = home();
    std::fs::create_dir_all(&home).with_context(|| format!("make {}", text(&home)))?;
    let wanted = [&["qemu-system-x86"], &debian::PACKAGES[..]].concat();
    let programs = match programs::fetch(&home, &wanted).await {
        Ok(programs) => programs,
        Err(error) => return Ok(Err(error)),
    };
    let base = home.join(format!("base-{VERSION}"));
    let done = base.join("done");
    if !done.exists() {
        let root = base.join("root");
        if let Err(error) = debian::install(&programs, &root, &PACKAGES).await {
            return Ok(Err(error));
        }
        build(&root, &base).await?;
        std::fs::write(&done, "").with_context(|| format!("write {}", text(&done)))?;
    }
    Ok(Ok(Host {
        programs,
        disk: base.join("disk.ext4"),
        kernel: base.join("vmlinuz"),
        initrd: base.join("initrd"),
    }))
}

/// Makes what a machine is started from of the Debian in `root`, which goes away.
async fn build(root: &Path, base: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    std::fs::write(units.join("nucleus-e2e.service"), UNIT).context("write the unit of the tests")?;
    let wants = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants).with_context(|| format!("make {}", text(&wants)))?;
    link(
        "/etc/systemd/system/nucleus-e2e.service",
        &wants.join("nucleus-e2e.service"),
    )?;
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    for (file, content) in [("etc/hostname", "node\n"), ("etc/fstab", "/dev/vda / ext4 rw 0 0\n")] {
        std::fs::write(root.join(file), content).with_context(|| format!("write {file}"))?;
    }
    for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
        let boot = root.join("boot");
        let entries = std::fs::read_dir(&boot).with_context(|| format!("read {}", text(&boot)))?;
        let found = entries
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let found = found.with_context(|| format!("no {prefix}… in {}", text(&boot)))?;
        std::fs::copy(found.path(), base.join(name)).with_context(|| format!("copy {}", text(&found.path())))?;
    }
    make_disk(root, &base.join("disk.ext4"), 2048).await?;
    std::fs::remove_dir_all(root).with_context(|| format!("remove {}", text(root)))
}

fn link(target: &str, path: &Path) -> Result<()> {
    if path.is_symlink() {
        std::fs::remove_file(path).with_context(|| format!("remove {}", text(path)))?;
    }
    std::os::unix::fs::symlink(target, path).with_context(|| format!("link {}", text(path)))
}

async fn make_disk(from: &Path, disk: &Path, megabytes: u32) -> Result<()> {
    if disk.exists() {
        std::fs::remove_file(disk).with_context(|| format!("remove {}", text(disk)))?;
    }
    // Debian has mkfs where an ordinary PATH does not look.
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-d"])
        .arg(from)
        .arg(disk)
        .arg(format!("{megabytes}M"))
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    step(&format!("make the disk {}", text(disk)), &mut make)
        .await
        .map(drop)
}

/// A disk with this very program, the shim, the probe, and the script that the machine runs.
pub async fn payload(tools: &Tools, script: &str) -> Result<PathBuf> {
    let directory = home().join(format!("payload-{}", std::process::id()));
    let files = directory.join("files");
    std::fs::create_dir_all(files.join("shim")).with_context(|| format!("make {}", text(&files)))?;
    let shim = "containerd-shim-nucleus-v2";
    let program = std::env::current_exe().context("find this program")?;
    for (from, to) in [
        (program, "e2e".to_owned()),
        (tools.probe.clone(), "probe".to_owned()),
        (tools.cli.clone(), "nucleus".to_owned()),
        (tools.shim.join(shim), format!("shim/{shim}")),
        (crate::prepare::gvisor().await?.join("runsc"), "runsc".to_owned()),
    ] {
        std::fs::copy(&from, files.join(&to)).with_context(|| format!("copy {}", text(&from)))?;
    }
    let run = files.join("run");
    std::fs::write(&run, script).with_context(|| format!("write {}", text(&run)))?;
    std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let disk = directory.join("disk.ext4");
    let length = |file: &str| std::fs::metadata(files.join(file)).map(|found| found.len());
    let size = (length("e2e")? + length("runsc")?) / (1 << 20);
    make_disk(&files, &disk, u32::try_from(size)? + 128).await?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_s_version_is_the_last_word_of_ldd_s_first_line() {
        assert_eq!(
            glibc("ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nCopyright\n"),
            Some((2, 36))
        );
        assert_eq!(glibc("ldd (Ubuntu GLIBC 2.39-0ubuntu8) 2.39\n"), Some((2, 39)));
        assert_eq!(glibc("musl libc (x86_64)\nVersion 1.2.5\n"), None);
    }
}
