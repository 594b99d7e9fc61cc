//! The images that critest asks for by name, made here, and pause. All have one layer: busybox with an applet's name
//! for every program, and our probe, which acts as the servers.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::{add, applets_of, architecture, directory, hard_link, write_layout};
use crate::prepare::Tools;

/// The image of the container that holds a pod's namespaces.
pub const PAUSE: &str = "nucleus.test/pause:1";
/// The image of tests that are our own.
pub const BUSYBOX: &str = "nucleus.test/busybox:1";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
default-user:x:1000:1000::/home/default-user:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
default-user:x:1000:
group-defined-in-image:x:50000:default-user
nogroup:x:65534:
";

/// Names under which probe acts as somebody else; see its `actors`.
const ACTORS: [&str; 4] = ["pause", "nginx", "httpd", "setuid"];

/// Writes all images into a file that `ctr images import` takes.
pub fn write(tools: &Tools, busybox: &Path, file: &Path) -> Result<()> {
    write_layout(file, &layer(tools, busybox)?, &images())?;
    Ok(())
}

fn images() -> Vec<(String, Value)> {
    let image = |name: &str, settings: Value| {
        let mut config = json!({"Env": [crate::spec::PATH], "Cmd": ["sh"]});
        if let (Some(config), Value::Object(settings)) = (config.as_object_mut(), settings) {
            config.extend(settings);
        }
        (name.to_owned(), config)
    };
    let program = |path: &str| json!({"Entrypoint": [path], "Cmd": null});
    let mut images = vec![
        image(PAUSE, program("/pause")),
        image(BUSYBOX, json!({})),
        image("registry.k8s.io/e2e-test-images/busybox:1.29-2", json!({})),
        image(
            "registry.k8s.io/e2e-test-images/nginx:1.14-2",
            program("/usr/sbin/nginx"),
        ),
        image(
            "registry.k8s.io/e2e-test-images/httpd:2.4.39-4",
            program("/usr/sbin/httpd"),
        ),
        image(
            "registry.k8s.io/e2e-test-images/nonewprivs:1.3",
            program("/usr/sbin/setuid"),
        ),
    ];
    let mut hostnet = program("/usr/sbin/nginx");
    hostnet["Env"] = json!([crate::spec::PATH, "PORT=12003"]);
    let hostnet_name = format!("hostnet-nginx-{}:latest", architecture());
    let staging = [
        (hostnet_name.as_str(), hostnet),
        ("test-image-user-uid:latest", json!({"User": "1002"})),
        ("test-image-user-username:latest", json!({"User": "www-data"})),
        ("test-image-user-uid-group:latest", json!({"User": "1003:1004"})),
        (
            "test-image-user-username-group:latest",
            json!({"User": "www-data:1004"}),
        ),
        ("test-image-predefined-group:latest", json!({"User": "1000"})),
    ];
    for (name, settings) in staging {
        images.push(image(&format!("gcr.io/k8s-staging-cri-tools/{name}"), settings));
    }
    images
}

/// The layer that they share.
pub fn layer(tools: &Tools, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in [
        "bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "usr/sbin", "var", "var/run",
    ] {
        directory(&mut archive, path, if path == "tmp" { 0o1777 } else { 0o755 }, 0)?;
    }
    directory(&mut archive, "home/default-user", 0o755, 1000)?;
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hosts", ""),
        ("etc/resolv.conf", ""),
    ] {
        add(&mut archive, path, 0o644, text.as_bytes())?;
    }
    let program = std::fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    add(&mut archive, "bin/busybox", 0o755, &program)?;
    // Hard links: what masks one of them must not mask them all.
    for applet in applets_of(busybox)? {
        hard_link(&mut archive, &format!("bin/{applet}"), "bin/busybox")?;
    }
    let probe = std::fs::read(&tools.probe).with_context(|| format!("read {}", tools.probe.display()))?;
    add(&mut archive, "bin/probe", 0o755, &probe)?;
    for actor in ACTORS {
        let (path, mode) = match actor {
            "pause" => ("pause".to_owned(), 0o755),
            "setuid" => ("usr/sbin/setuid".to_owned(), 0o4755),
            other => (format!("usr/sbin/{other}"), 0o755),
        };
        add(&mut archive, &path, mode, &probe)?;
    }
    archive.into_inner().context("write the layer")
}
