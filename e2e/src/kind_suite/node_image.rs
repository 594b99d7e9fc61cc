//! The image that kind starts nodes from, made here: a Debian with kind's own node files, Kubernetes' programs, and
//! containerd's store with the images of the control plane and of the tests in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::store::{POSTGRES_SCRIPT, PROXY_SCRIPT};
use super::{home, make_directory, text, write};
use crate::image::{add, architecture};
use crate::prepare::{Tools, debian, go_tools, programs, step};
use crate::{cri, software, spec};

/// kind's sources hold what its node image is made of.
const KIND_MODULE: &str = "sigs.k8s.io/kind";
/// What Debian gives to a node; kind's Dockerfile names the reasons.
const PACKAGES: [&str; 26] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "conntrack",
    "iptables",
    "nftables",
    "iproute2",
    "ethtool",
    "util-linux",
    "mount",
    "ebtables",
    "kmod",
    "procps",
    "bash",
    "ca-certificates",
    "curl",
    "jq",
    "socat",
    "libseccomp2",
    "ipset",
    "openssl",
    "hostname",
    "tar",
    "pigz",
    "containernetworking-plugins",
    "e2fsprogs",
];
const BASE_SCRIPT: &str = include_str!("base.sh");
/// Kubernetes' version, of programs and images.
pub const VERSION: &str = "v1.37.2";
/// kind applies a manifest of the default storage, and wants an object in it; the network's it does not apply here.
const STORAGE: &str = "\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
provisioner: kubernetes.io/no-provisioner
";

/// What the image is called, and where it comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeImage {
    pub name: String,
    source: Source,
    /// Archives of the tests' images, where its store does not have them.
    pub missing: Vec<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Source {
    /// Two layers, made here.
    Layers(Vec<Layer>),
    /// What `docker save` writes.
    Archive(PathBuf),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Layer {
    file: PathBuf,
    digest: String,
}

/// Builds what is not there yet; with `given`, kind's official image or one like it is taken for the nodes.
pub async fn prepare(tools: &Tools, kubernetes: &Path, given: Option<&str>) -> Result<NodeImage> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "the node image is tried on x86_64 alone: this host is {}",
            std::env::consts::ARCH
        );
    }
    make_directory(&home())?;
    let (etcd, cri_tools, busybox) =
        tokio::try_join!(go_tools::ETCD.build(), go_tools::CRI.build(), cri::busybox::busybox())?;
    let base = base().await?;
    software::image::prepare().await?;
    let parts = Parts {
        kubernetes: kubernetes.to_owned(),
        etcd,
        cri_tools,
        busybox,
        root: base.with_file_name("root"),
        software: software::image::root(),
    };
    if let Some(given) = given {
        return parts.beside(tools, given).await;
    }
    let key = parts.key(tools, &base)?;
    let directory = home().join(format!("node-{key}"));
    if !directory.exists() {
        remove_others(&directory)?;
        let staging = home().join(format!("tmp{}", std::process::id()));
        parts.build(tools, &staging).await?;
        std::fs::rename(&staging, &directory).with_context(|| format!("rename {}", text(&staging)))?;
    }
    Ok(NodeImage {
        name: format!("nucleus.test/node:{key}"),
        source: Source::Layers(vec![layer(&base)?, layer(&directory.join("kubernetes.tar"))?]),
        missing: Vec::new(),
    })
}

/// The first layer: `base.tar`, beside the directory `root` that it was made of.
async fn base() -> Result<PathBuf> {
    let key = hash(&[PACKAGES.join(",").as_bytes(), BASE_SCRIPT.as_bytes()]);
    let directory = home().join(format!("base-{key}"));
    let tar = directory.join("base.tar");
    if tar.exists() {
        return Ok(tar);
    }
    let kind = go_tools::KIND.module(KIND_MODULE).await?;
    let root = directory.join("root");
    make_directory(&directory)?;
    let programs = programs::fetch(&home().join("debian"), &debian::PACKAGES).await?;
    debian::install(&programs, &root, &PACKAGES).await?;
    let mut script = shell(BASE_SCRIPT);
    script.env("ROOT", &root).env("FILES", kind.join("images/base/files"));
    step("make a node of it", &mut script).await?;
    archive(&root, &tar).await?;
    Ok(tar)
}

/// What the second layer is made of.
pub struct Parts {
    pub kubernetes: PathBuf,
    pub etcd: PathBuf,
    cri_tools: PathBuf,
    pub busybox: PathBuf,
    /// The node's Debian, and one with servers.
    pub root: PathBuf,
    pub software: PathBuf,
}

impl Parts {
    /// An image that somebody else made, of this machine's docker or an archive of its; the tests' own images beside
    /// it.
    async fn beside(&self, tools: &Tools, given: &str) -> Result<NodeImage> {
        let directory = home().join("given");
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| format!("remove {}", text(&directory)))?;
        }
        make_directory(&directory)?;
        let archive = if Path::new(given).is_file() {
            PathBuf::from(given)
        } else {
            let file = directory.join("node");
            let mut pull = Command::new("docker");
            step(&format!("pull {given}"), pull.args(["pull", "--quiet", given])).await?;
            let mut save = Command::new("docker");
            save.arg("save").arg("--output").arg(&file).arg(given);
            step(&format!("save {given}"), &mut save).await?;
            file
        };
        Ok(NodeImage {
            name: name_of(&archive)?,
            source: Source::Archive(archive),
            missing: self.of_tests(tools, &directory).await?,
        })
    }

    /// The directories' names carry the hashes of what is in them; the probe is in the images.
    fn key(&self, tools: &Tools, base: &Path) -> Result<String> {
        let probe = std::fs::read(&tools.probe).with_context(|| format!("read {}", text(&tools.probe)))?;
        let mut parts = vec![
            PROXY_SCRIPT.as_bytes().to_vec(),
            POSTGRES_SCRIPT.as_bytes().to_vec(),
            include_bytes!("node_image.rs").to_vec(),
            include_bytes!("store.rs").to_vec(),
            probe,
        ];
        for directory in [
            &self.kubernetes,
            &self.etcd,
            &self.cri_tools,
            &tools.containerd_2,
            base.parent().unwrap_or(base),
            self.software.parent().unwrap_or(base),
        ] {
            parts.push(directory.file_name().unwrap_or_default().as_encoded_bytes().to_vec());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(hash(&parts))
    }

    async fn build(&self, tools: &Tools, staging: &Path) -> Result<()> {
        let root = staging.join("root");
        let copies = [
            (&self.kubernetes, "kubelet", "usr/bin/kubelet"),
            (&self.kubernetes, "kubeadm", "usr/bin/kubeadm"),
            (&self.kubernetes, "kubectl", "usr/bin/kubectl"),
            (&tools.containerd_2, "containerd", "usr/local/bin/containerd"),
            (&tools.containerd_2, "ctr", "usr/local/bin/ctr"),
            (
                &tools.containerd_2,
                "containerd-shim-runc-v2",
                "usr/local/bin/containerd-shim-runc-v2",
            ),
            (&tools.runc, "runc", "usr/local/sbin/runc"),
            (&self.cri_tools, "crictl", "usr/local/bin/crictl"),
        ];
        for (from, program, to) in copies {
            let (from, to) = (from.join(program), root.join(to));
            make_directory(to.parent().unwrap_or(&root))?;
            std::fs::copy(&from, &to).with_context(|| format!("copy {}", text(&from)))?;
        }
        for (file, content) in [
            ("kind/version", VERSION),
            ("kind/manifests/default-cni.yaml", STORAGE),
            ("kind/manifests/default-storage.yaml", STORAGE),
            ("etc/containerd/cri-base.json", &base_spec(tools).await?),
        ] {
            let file = root.join(file);
            make_directory(file.parent().unwrap_or(&root))?;
            write(&file, content)?;
        }
        self.fill_store(tools, staging, &root.join("var/lib/containerd"))
            .await?;
        archive(&root, &staging.join("kubernetes.tar")).await?;
        std::fs::remove_dir_all(&root).with_context(|| format!("remove {}", text(&root)))
    }
}

/// What kind's Dockerfile makes of `ctr oci spec`: a hook that gives pods a machine's name of their own, no limits.
async fn base_spec(tools: &Tools) -> Result<String> {
    let mut ctr = Command::new(tools.containerd_2.join("ctr"));
    let text = step("ask ctr for a specification", ctr.args(["oci", "spec"])).await?;
    let mut spec: Value = serde_json::from_str(&text).context("read the specification")?;
    spec["hooks"] = json!({"createContainer": [{"path": "/kind/bin/mount-product-files.sh"}]});
    if let Some(process) = spec["process"].as_object_mut() {
        process.remove("rlimits");
    }
    Ok(spec.to_string())
}

impl NodeImage {
    /// Writes the image as `docker load` takes it.
    pub fn write(&self, mut output: impl std::io::Write) -> Result<()> {
        let layers = match &self.source {
            Source::Layers(layers) => layers,
            Source::Archive(file) => {
                let mut input = std::fs::File::open(file).with_context(|| format!("open {}", text(file)))?;
                return std::io::copy(&mut input, &mut output)
                    .context("send the image")
                    .map(drop);
            }
        };
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Env": [spec::PATH, "container=docker"],
                "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
                "StopSignal": "SIGRTMIN+3",
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"comment": "Debian with kind's files"}, {"comment": "Kubernetes"}],
        });
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [self.name],
            "Layers": ["layer0.tar", "layer1.tar"],
        }]);
        let mut archive = tar::Builder::new(output);
        add(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
        add(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
        for (number, layer) in layers.iter().enumerate() {
            archive
                .append_path_with_name(&layer.file, format!("layer{number}.tar"))
                .with_context(|| format!("send {}", text(&layer.file)))?;
        }
        archive
            .into_inner()
            .context("end the image")?
            .flush()
            .context("send the image")
    }
}

/// The first name of the image in an archive of `docker save`.
fn name_of(file: &Path) -> Result<String> {
    let archive = std::fs::File::open(file).with_context(|| format!("open {}", text(file)))?;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().with_context(|| format!("read {}", text(file)))? {
        let entry = entry.with_context(|| format!("read {}", text(file)))?;
        if entry.path().is_ok_and(|path| path.as_os_str() == "manifest.json") {
            let manifest: Value = serde_json::from_reader(entry).context("read manifest.json")?;
            let name = manifest[0]["RepoTags"][0].as_str();
            return Ok(name
                .with_context(|| format!("the image in {} has no name", text(file)))?
                .to_owned());
        }
    }
    bail!("{} is no archive of docker save: it has no manifest.json", text(file))
}

/// The directory as a tar file: under another name until it is whole.
pub async fn archive(root: &Path, file: &Path) -> Result<()> {
    let staging = file.with_extension("part");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--numeric-owner", "--xattrs", "--file"])
        .arg(&staging)
        .arg("--directory")
        .arg(root)
        .arg(".");
    step(&format!("make {}", text(file)), &mut tar).await?;
    std::fs::rename(&staging, file).with_context(|| format!("rename {}", text(&staging)))
}

/// A layer and its digest, which is kept beside it.
fn layer(file: &Path) -> Result<Layer> {
    let beside = file.with_extension("digest");
    let digest = match std::fs::read_to_string(&beside) {
        Ok(digest) => digest,
        Err(_) => {
            let mut hash = Sha256::new();
            let mut input = std::fs::File::open(file).with_context(|| format!("open {}", text(file)))?;
            std::io::copy(&mut input, &mut HashWriter(&mut hash)).with_context(|| format!("read {}", text(file)))?;
            let digest = format!("sha256:{}", hexadecimal(&hash.finalize()));
            write(&beside, &digest)?;
            digest
        }
    };
    Ok(Layer {
        file: file.to_owned(),
        digest,
    })
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finalize()[..6])
}

/// Node images are half a gigabyte each: only the one that is used stays.
fn remove_others(keep: &Path) -> Result<()> {
    let entries = std::fs::read_dir(home()).context("read target/kind")?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("node-") && path != keep {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", text(&path)))?;
        }
    }
    Ok(())
}

pub fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}
