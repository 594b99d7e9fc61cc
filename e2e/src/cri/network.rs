//! The pods' network: CNI plugins and iptables out of packages, a bridge in a network namespace that is containerd's
//! own. Nothing of it is seen by the machine, and all of it goes with the namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::process::Command;

use crate::prepare::{packages, step, target};

/// What iptables needs where it is not installed: nothing of this is, it is unpacked beside us.
const PACKAGES: [&str; 9] = [
    "containernetworking-plugins",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
];

/// Where the plugins are, and a directory with `iptables` alone for containerd's PATH.
pub struct Plugins {
    pub directory: PathBuf,
    pub iptables: PathBuf,
}

impl Plugins {
    pub async fn fetch() -> Result<Self> {
        let root = packages::unpacked(&PACKAGES).await?;
        let iptables = target().join("tools/iptables");
        fs::create_dir_all(&iptables).with_context(|| format!("make {}", iptables.display()))?;
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = root.join("usr/lib").join(triplet);
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={libraries} XTABLES_LIBDIR={libraries}/xtables \
             exec {root}/usr/sbin/xtables-nft-multi \"${{0##*/}}\" \"$@\"\n",
            libraries = libraries.display(),
            root = root.display()
        );
        for name in ["iptables", "ip6tables"] {
            write_program(&iptables.join(name), &script)?;
        }
        Ok(Self {
            directory: root.join("usr/lib/cni"),
            iptables,
        })
    }
}

/// Complete or not there at all: another run may execute it at the same time.
fn write_program(file: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let staging = file.with_extension(format!("tmp{}", std::process::id()));
    fs::write(&staging, text).with_context(|| format!("write {}", staging.display()))?;
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod {}", staging.display()))?;
    fs::rename(&staging, file).with_context(|| format!("rename {}", staging.display()))
}

/// Makes a network namespace that lives on a file, with its loopback up.
pub async fn make_namespace(file: &Path, busybox: &Path) -> Result<()> {
    fs::write(file, "").with_context(|| format!("make {}", file.display()))?;
    let mut make = Command::new("unshare");
    make.arg(format!("--net={}", file.display()))
        .arg(busybox)
        .args(["ip", "link", "set", "lo", "up"]);
    step("make a network namespace", &mut make).await?;
    Ok(())
}

/// Writes the pods' network for CNI into a directory.
pub fn write_conflist(directory: &Path, state: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let conflist = json!({
        "cniVersion": "0.4.0",
        "name": "e2e",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": state,
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let file = directory.join("10-e2e.conflist");
    fs::write(&file, conflist.to_string()).with_context(|| format!("write {}", file.display()))
}
