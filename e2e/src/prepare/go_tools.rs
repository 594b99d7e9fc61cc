//! Programs out of the Go module proxy. Each group has its own go.mod below `e2e/tools`, because their dependencies
//! disagree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{lock, root, step, target};

/// A go.mod below `e2e/tools`, and what is built from it.
pub struct Group {
    /// Its directory there, and the beginning of its name below `target/tools`.
    pub name: &'static str,
    /// What is told while it is built.
    pub what: &'static str,
    pub tags: &'static str,
    pub ldflags: &'static str,
    /// Test binaries beside the programs that go.mod calls tools: file name and package.
    pub tests: &'static [(&'static str, &'static str)],
}

/// containerd, ctr and containerd-shim-runc-v2.
pub const CONTAINERD: Group = Group {
    name: "containerd",
    what: "build containerd 2.4.2 (about two minutes, once)",
    tags: "no_btrfs,no_zfs,no_devmapper",
    ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2",
    tests: &[],
};

/// helm.
pub const HELM: Group = Group {
    name: "helm",
    what: "build helm 4.3.1 (about three minutes, once)",
    tags: "",
    ldflags: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    tests: &[],
};

/// runsc and gVisor's own shim, as `shim`. The commit of gVisor's `go` branch carries no version of its own: it is
/// given that of its release.
pub const GVISOR: Group = Group {
    name: "gvisor",
    what: "build runsc of 2026-02-24 and its own shim (about two minutes, once)",
    tags: "",
    ldflags: "-s -w -X gvisor.dev/gvisor/runsc/version.version=release-20260224.0",
    tests: &[],
};

/// kubelet, kubeadm, kubectl, kube-proxy and the control plane. kubeadm takes no version but one that was linked in.
pub const KUBERNETES: Group = Group {
    name: "kubernetes",
    what: "build Kubernetes 1.37.2 (about eleven minutes, once)",
    tags: "",
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean",
    tests: &[],
};

/// etcd, as `server`.
pub const ETCD: Group = Group {
    name: "etcd",
    what: "build etcd 3.7.3 (about a minute, once)",
    tags: "",
    ldflags: "-s -w",
    tests: &[],
};

/// kind.
pub const KIND: Group = Group {
    name: "kind",
    what: "build kind 0.33.0 (half a minute, once)",
    tags: "",
    ldflags: "-s -w",
    tests: &[],
};

/// crictl and critest.
pub const CRI: Group = Group {
    name: "cri",
    what: "build crictl and critest 1.36.0 (about a minute, once)",
    tags: "",
    ldflags: "-s -w",
    tests: &[("critest", "sigs.k8s.io/cri-tools/cmd/critest")],
};

/// How much a build may be in the way of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    Normal,
    /// Where nothing else wants a processor (sched(7), SCHED_IDLE).
    Idle,
}

impl Group {
    /// A directory with all of it, built unless that was done before.
    pub async fn build(&self) -> Result<PathBuf> {
        self.build_with(Priority::Normal).await
    }

    /// Builds it for later, while tests that wait leave processors idle.
    pub async fn build_ahead(&self) -> Result<PathBuf> {
        self.build_with(Priority::Idle).await
    }

    async fn build_with(&self, priority: Priority) -> Result<PathBuf> {
        let module = root().join("e2e/tools").join(self.name);
        let directory = target()
            .join("tools")
            .join(format!("{}-{}", self.name, self.key(&module)?));
        if directory.exists() {
            return Ok(directory);
        }
        let tools = target().join("tools");
        std::fs::create_dir_all(&tools).with_context(|| format!("make {}", tools.display()))?;
        // One build at a time, whoever asks: the next one finds it done.
        let _lock = lock::exclusive(&directory.with_extension("lock")).await?;
        if directory.exists() {
            return Ok(directory);
        }
        let staging = directory.with_extension(format!("tmp{}", std::process::id()));
        std::fs::create_dir_all(&staging).with_context(|| format!("make {}", staging.display()))?;
        let mut build = self.go(&module, "build", priority);
        build.arg("-o").arg(format!("{}/", staging.display())).arg("tool");
        step(self.what, &mut build).await?;
        for (file, package) in self.tests {
            let mut build = self.go(&module, "test", priority);
            build
                .args(["-vet=off", "-c", "-o"])
                .arg(staging.join(file))
                .arg(package);
            step(&format!("build {file}"), &mut build).await?;
        }
        // Complete or not there at all.
        std::fs::rename(&staging, &directory)
            .with_context(|| format!("rename {} to {}", staging.display(), directory.display()))?;
        Ok(directory)
    }

    /// Where a module of the group's go.mod is, with its files that are no Go.
    pub async fn module(&self, module: &str) -> Result<PathBuf> {
        let directory = root().join("e2e/tools").join(self.name);
        let mut list = Command::new("go");
        list.args(["mod", "download", "-json", module])
            .env("GOWORK", "off")
            .current_dir(&directory);
        let told = step(&format!("look for {module}"), &mut list).await?;
        let told: serde_json::Value = serde_json::from_str(&told).context("read what go says of a module")?;
        let path = told["Dir"].as_str();
        Ok(path
            .with_context(|| format!("go does not say where {module} is"))?
            .into())
    }

    fn key(&self, module: &Path) -> Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = module.join(file);
            hash.update(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        hash.update(self.tags);
        hash.update(self.ldflags);
        for (file, package) in self.tests {
            hash.update([*file, *package].join("\0"));
        }
        Ok(hash
            .finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// A command of the group's module, as its programs are built.
    pub(super) fn command(&self, module: &Path, verb: &str) -> Command {
        self.go(module, verb, Priority::Normal)
    }

    fn go(&self, module: &Path, verb: &str, priority: Priority) -> Command {
        let mut command = match priority {
            Priority::Normal => Command::new("go"),
            Priority::Idle => {
                let mut command = Command::new("chrt");
                command.args(["--idle", "0", "go"]);
                command
            }
        };
        command
            .args([
                verb,
                "-trimpath",
                "-buildvcs=false",
                "-tags",
                self.tags,
                "-ldflags",
                self.ldflags,
            ])
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            // Compilers live for seconds, and memory for two of them is there: a fifth of the processors' time is not
            // spent on collecting.
            .env("GOGC", "800")
            .current_dir(module);
        command
    }
}
