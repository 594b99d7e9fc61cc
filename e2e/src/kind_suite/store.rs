//! The images that are in the nodes' store from the start: those of the control plane, and those of the tests' pods.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::node_image::{Parts, VERSION, archive, shell};
use super::{make_directory, text, write};
use crate::image::{add, directory, write_layout};
use crate::prepare::{Tools, step};
use crate::{cri, spec};

pub const PROXY_SCRIPT: &str = include_str!("proxy.sh");
pub const POSTGRES_SCRIPT: &str = include_str!("postgres.sh");

/// The image of the tests' pods, and of what serves HTTP on port 80.
pub const BUSYBOX: &str = cri::images::BUSYBOX;
pub const WEB: &str = "nucleus.test/web:1";
/// PostgreSQL 15 of Debian.
pub const POSTGRES: &str = "nucleus.test/postgres:1";
/// busybox with labels that are none of an image's business.
pub const HOSTILE: &str = "nucleus.test/hostile:1";

impl Parts {
    /// Runs a containerd on the store that the nodes will have, and imports the images, not unpacked.
    pub async fn fill_store(&self, tools: &Tools, staging: &Path, store: &Path) -> Result<()> {
        let mut files = self.of_tests(tools, staging).await?;
        for image in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let path = format!("usr/local/bin/{image}");
            files.push(program(staging, image, VERSION, &self.kubernetes.join(image), &path)?);
        }
        let etcd = self.etcd.join("server");
        files.push(program(staging, "etcd", ETCD_IMAGE, &etcd, "usr/local/bin/etcd")?);

        let state = staging.join("containerd");
        make_directory(&state)?;
        let address = state.join("containerd.sock");
        let config = state.join("config.toml");
        write(
            &config,
            "version = 3\ndisabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n",
        )?;
        let log = std::fs::File::create(state.join("log")).context("make a log")?;
        let mut containerd = Command::new(tools.containerd_2.join("containerd"))
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(store)
            .arg("--state")
            .arg(state.join("state"))
            .arg("--address")
            .arg(&address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start containerd for the nodes' images")?;
        wait_for(&address).await?;
        for file in &files {
            let mut import = Command::new(tools.containerd_2.join("ctr"));
            import
                .arg("--address")
                .arg(&address)
                .args(["--namespace", "k8s.io", "images", "import", "--local", "--no-unpack"])
                .arg(file);
            step(&format!("import {}", text(file)), &mut import).await?;
            std::fs::remove_file(file).with_context(|| format!("remove {}", text(file)))?;
        }
        let pid = containerd.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid
            .and_then(rustix::process::Pid::from_raw)
            .context("containerd ended")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("end containerd")?;
        containerd.wait().await.context("wait for containerd")?;
        std::fs::remove_dir_all(&state).with_context(|| format!("remove {}", text(&state)))
    }

    /// The images that no official node has, as archives below `staging`.
    pub async fn of_tests(&self, tools: &Tools, staging: &Path) -> Result<Vec<PathBuf>> {
        let kubectl = self.kubernetes.join("kubectl");
        let kubectl = program(staging, "kubectl", VERSION, &kubectl, "bin/kubectl")?;
        let tests = staging.join("tests.tar");
        write_layout(&tests, &cri::images::layer(tools, &self.busybox)?, &test_images())?;
        let (proxy, postgres) = (self.proxy(staging).await?, self.postgres(tools, staging).await?);
        Ok(vec![kubectl, tests, proxy, postgres])
    }

    async fn proxy(&self, staging: &Path) -> Result<PathBuf> {
        let root = staging.join("proxy");
        let mut collect = shell(PROXY_SCRIPT);
        collect.env("ROOT", &self.root);
        step("collect what kube-proxy runs", collected(&mut collect, &root)?).await?;
        let program = root.join("usr/local/bin/kube-proxy");
        std::fs::copy(self.kubernetes.join("kube-proxy"), &program).context("copy kube-proxy")?;
        let name = format!("registry.k8s.io/kube-proxy:{VERSION}");
        image_of(&root, name, json!({"Env": [spec::PATH]})).await
    }

    async fn postgres(&self, tools: &Tools, staging: &Path) -> Result<PathBuf> {
        let root = staging.join("postgres");
        let mut collect = shell(POSTGRES_SCRIPT);
        collect.env("ROOT", &self.software).env("BUSYBOX", &tools.busybox);
        step("collect what PostgreSQL runs", collected(&mut collect, &root)?).await?;
        let path = format!("{}:/usr/lib/postgresql/15/bin", spec::PATH);
        // Debian's unit and Docker's image of it end it so: without waiting for clients.
        let config =
            json!({"Env": [path, "PGHOST=/tmp", "PGUSER=postgres"], "User": "postgres", "StopSignal": "SIGINT"});
        image_of(&root, POSTGRES.to_owned(), config).await
    }
}

/// An image of Kubernetes' with one program.
fn program(staging: &Path, image: &str, version: &str, file: &Path, path: &str) -> Result<PathBuf> {
    let archive = staging.join(format!("{image}.tar"));
    let config = json!({"Env": [spec::PATH], "Entrypoint": [format!("/{path}")]});
    let name = format!("registry.k8s.io/{image}:{version}");
    write_layout(&archive, &one_program(file, path)?, &[(name, config)])?;
    Ok(archive)
}

/// The script that collects into an empty directory.
fn collected<'a>(script: &'a mut Command, directory: &Path) -> Result<&'a mut Command> {
    make_directory(directory)?;
    Ok(script.env("OUT", directory))
}

/// An image of a directory, in a file beside it; the directory goes.
async fn image_of(root: &Path, name: String, config: Value) -> Result<PathBuf> {
    let tar = root.with_extension("layer");
    archive(root, &tar).await?;
    let layer = std::fs::read(&tar).with_context(|| format!("read {}", text(&tar)))?;
    std::fs::remove_dir_all(root).with_context(|| format!("remove {}", text(root)))?;
    std::fs::remove_file(&tar).with_context(|| format!("remove {}", text(&tar)))?;
    let file = root.with_extension("tar");
    write_layout(&file, &layer, &[(name, config)])?;
    Ok(file)
}

/// What kubeadm of this version asks for, whatever etcd is in it.
const ETCD_IMAGE: &str = "3.7.0-0";

fn test_images() -> Vec<(String, Value)> {
    let program = |path: &str| json!({"Env": [spec::PATH], "Entrypoint": [path]});
    vec![
        // The name that kind's configuration of containerd has.
        ("registry.k8s.io/pause:3.10".to_owned(), program("/pause")),
        (BUSYBOX.to_owned(), json!({"Env": [spec::PATH], "Cmd": ["sh"]})),
        (WEB.to_owned(), program("/usr/sbin/nginx")),
        (
            HOSTILE.to_owned(),
            json!({"Env": [spec::PATH], "Cmd": ["sh"], "Labels": hostile_labels()}),
        ),
    ]
}

/// What containerd, kubelet and the runtime write themselves, and something longer than containerd stores.
fn hostile_labels() -> Value {
    json!({
        "io.cri-containerd.kind": "sandbox",
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": "../../../../etc",
        "io.kubernetes.container.name": "another",
        "nucleus.dev/mode": "agent",
        "nucleus.dev/runtime": "gvisor",
        "containerd.io/restart.status": "running",
        "long": "x".repeat(10_000),
    })
}

/// An image's layer with one program and an empty directory for what it writes.
fn one_program(program: &Path, path: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    directory(&mut archive, "tmp", 0o1777, 0)?;
    let bytes = std::fs::read(program).with_context(|| format!("read {}", text(program)))?;
    add(&mut archive, path, 0o755, &bytes)?;
    archive.into_inner().context("write a layer")
}

async fn wait_for(socket: &Path) -> Result<()> {
    let begun = Instant::now();
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("nobody listens on {} after a minute", text(socket));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
