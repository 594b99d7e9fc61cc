//! The images that the tests pull, made here: busybox with the users that they ask for, the same under the name of one
//! that is mapped to other ids, and one that has a `bash` and a set-user-ID `passwd`, as its namesake's base has.

use anyhow::{Context, Result};
use serde_json::json;

use crate::image::{self, add, digest, directory, link};
use crate::prepare::Tools;

use super::registry::{Blob, Repository};

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
backup:x:34:34:backup:/var/backups:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
tty:x:5:
www-data:x:33:
backup:x:34:
nogroup:x:65534:
";

/// The tests want SIGTERM to end a container whose first process is `nc`. As a PID namespace's init it would have to
/// catch the signal for that, which not every build of busybox's does.
const NC: &[u8] = br#"#!/bin/sh
trap 'exit 143' TERM
busybox nc "$@" &
wait $!
"#;

/// All of them, as a registry serves them.
pub fn images(tools: &Tools) -> Result<Vec<Repository>> {
    Ok(vec![
        repository("busybox", "1.36", vec![layer(tools, false)?]),
        repository("volume-ownership", "2.1", vec![layer(tools, true)?]),
        repository("volume-copy-up", "2.2", vec![layer(tools, false)?, second_layer()?]),
    ])
}

fn repository(name: &str, tag: &str, layers: Vec<Vec<u8>>) -> Repository {
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let config = json!({
        "architecture": image::architecture(),
        "os": "linux",
        "config": {"Env": [crate::spec::PATH], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, blob: &[u8]| json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
    });
    let blob = |kind: &'static str, bytes: Vec<u8>| Blob {
        kind,
        digest: digest(&bytes),
        bytes,
    };
    Repository {
        name: name.to_owned(),
        tag: tag.to_owned(),
        manifest: blob(MANIFEST, manifest.to_string().into_bytes()),
        blobs: std::iter::once(blob(CONFIG, config))
            .chain(layers.into_iter().map(|layer| blob(LAYER, layer)))
            .collect(),
    }
}

/// Lies above another, so that overlay has two.
fn second_layer() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    directory(&mut archive, "volume", 0o755, 0)?;
    archive.into_inner().context("write the second layer")
}

fn layer(tools: &Tools, with_bash: bool) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in [
        "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var",
    ] {
        directory(&mut archive, path, if path == "tmp" { 0o1777 } else { 0o755 }, 0)?;
    }
    add(&mut archive, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    add(&mut archive, "etc/group", 0o644, GROUP.as_bytes())?;
    let busybox = std::fs::read(&tools.busybox).with_context(|| format!("read {}", tools.busybox.display()))?;
    add(&mut archive, "bin/busybox", 0o755, &busybox)?;
    for applet in image::applets(tools)?.iter().filter(|applet| *applet != "nc") {
        link(&mut archive, &format!("bin/{applet}"), "busybox")?;
    }
    add(&mut archive, "bin/nc", 0o755, NC)?;
    if with_bash {
        add(&mut archive, "bin/bash", 0o755, b"#!/bin/sh\nexec /bin/sh \"$@\"\n")?;
        add(&mut archive, "usr/bin/passwd", 0o4755, b"#!/bin/sh\n")?;
    }
    archive.into_inner().context("write the layer")
}
