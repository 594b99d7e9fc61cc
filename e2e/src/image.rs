//! The test image, made here: busybox and its applets, our probe, a few users and groups, as an OCI image layout in a
//! tar file that `ctr images import` takes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::prepare::Tools;

/// The image's name in containerd.
pub const NAME: &str = "nucleus.test/busybox:1";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
tester:x:1000:1000:Tester:/home/tester:/bin/sh
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
tty:x:5:
tester:x:1000:
staff:x:2000:tester
audio:x:2001:tester,daemon
";

/// An image in a file, and what its only layer is called once unpacked.
#[derive(Clone, Debug)]
pub struct Image {
    pub tar: PathBuf,
    pub chain_id: String,
}

/// Builds the image into a file.
pub fn build(tools: &Tools, file: &Path) -> Result<Image> {
    let config = json!({"Env": [crate::spec::PATH], "Cmd": ["sh"]});
    let chain_id = write_layout(file, &layer(tools)?, &[(NAME.to_owned(), config)])?;
    Ok(Image {
        tar: file.to_owned(),
        chain_id,
    })
}

/// Writes images of one and the same layer into an OCI image layout: their names, and what containers of them get.
/// Gives back how containerd calls the unpacked layer.
pub fn write_layout(file: &Path, layer: &[u8], images: &[(String, Value)]) -> Result<String> {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    let chain_id = digest(layer);
    let descriptor = |kind: &str, blob: &[u8]| json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()});
    let mut entries = Vec::new();
    let mut blobs = BTreeMap::from([(chain_id.clone(), layer.to_owned())]);
    for (name, config) in images {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [chain_id]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        entries.push(entry);
        blobs.extend([(digest(&config), config), (digest(&manifest), manifest)]);
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});

    let output = std::fs::File::create(file).with_context(|| format!("create {}", file.display()))?;
    let mut archive = tar::Builder::new(output);
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
    for (digest, blob) in &blobs {
        add(&mut archive, &digest.replace("sha256:", "blobs/sha256/"), 0o644, blob)?;
    }
    archive
        .into_inner()
        .and_then(|mut file| file.flush())
        .with_context(|| format!("write {}", file.display()))?;
    Ok(chain_id)
}

fn layer(tools: &Tools) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("mnt", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("run", 0o755),
        ("sbin", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
    ] {
        directory(&mut archive, path, mode, 0)?;
    }
    directory(&mut archive, "home/tester", 0o755, 1000)?;
    directory(&mut archive, "usr/data", 0o755, 0)?;
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/resolv.conf", ""),
        ("usr/data/seed", "from the image\n"),
        ("etc/not-executable", "#!/bin/sh\n"),
    ] {
        add(&mut archive, path, 0o644, text.as_bytes())?;
    }
    // A script without an interpreter that exists, and a file that no kernel takes for a program.
    add(&mut archive, "bin/bad-interpreter", 0o755, b"#!/no/such/interpreter\n")?;
    add(&mut archive, "bin/not-a-program", 0o755, b"\x7fNOT\0\0\0\0")?;
    for (path, program) in [("bin/busybox", &tools.busybox), ("bin/probe", &tools.probe)] {
        let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
        add(&mut archive, path, 0o755, &bytes)?;
    }
    for applet in applets(tools)? {
        link(&mut archive, &format!("bin/{applet}"), "busybox")?;
    }
    // Links that lead out of a container if they are followed by strings.
    link(&mut archive, "mnt/absolute", "/usr/data")?;
    link(&mut archive, "mnt/escape", "../../../../../../tmp")?;
    archive.into_inner().context("write the layer")
}

/// The machine's architecture, as images call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Names under which busybox can be called.
pub fn applets(tools: &Tools) -> Result<Vec<String>> {
    applets_of(&tools.busybox)
}

/// The same of any busybox.
pub fn applets_of(busybox: &Path) -> Result<Vec<String>> {
    let applets = Command::new(busybox)
        .arg("--list")
        .output()
        .context("ask busybox for its applets")?;
    let names = String::from_utf8_lossy(&applets.stdout);
    let names = names.lines().filter(|applet| *applet != "busybox");
    Ok(names.map(str::to_owned).collect())
}

type Archive<W> = tar::Builder<W>;

fn header(kind: tar::EntryType, mode: u32, size: usize, owner: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(owner);
    header.set_gid(owner);
    // The same bytes at every build, so that containerd sees the same image.
    header.set_mtime(0);
    header
}

/// Puts a file into a layer; it belongs to root.
pub fn add<W: Write>(archive: &mut Archive<W>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len(), 0);
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("add {path} to a tar file"))
}

/// … a directory, with its owner
pub fn directory<W: Write>(archive: &mut Archive<W>, path: &str, mode: u32, owner: u64) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0, owner);
    archive
        .append_data(&mut header, format!("{path}/"), std::io::empty())
        .with_context(|| format!("add {path}/"))
}

/// … a symbolic link
pub fn link<W: Write>(archive: &mut Archive<W>, path: &str, target: &str) -> Result<()> {
    let mut header = header(tar::EntryType::Symlink, 0o777, 0, 0);
    archive
        .append_link(&mut header, path, target)
        .with_context(|| format!("add the link {path}"))
}

/// … a second name of a file that is in it already
pub fn hard_link<W: Write>(archive: &mut Archive<W>, path: &str, target: &str) -> Result<()> {
    let mut header = header(tar::EntryType::Link, 0o755, 0, 0);
    archive
        .append_link(&mut header, path, target)
        .with_context(|| format!("add the hard link {path}"))
}

/// sha256, as OCI writes it.
pub fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}
