//! A containerd with its CRI service on, handlers `runc` and `nucleus`, and a network for its pods.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use crate::containerd::{Daemon, Setup, Version, new_directory};
use crate::context::Runtime;
use crate::gvisor::Installed;
use crate::prepare::{self, Tools, go_tools, target};

use super::network::{self, Plugins};
use super::{busybox, images};

/// The containerd namespace in which its CRI service keeps everything.
pub const NAMESPACE: &str = "k8s.io";

/// What all of them share, fetched and built once.
pub struct Kit {
    plugins: Plugins,
    busybox: PathBuf,
    cri_tools: PathBuf,
    images: PathBuf,
    /// Where containers of the handler `gvisor` find theirs, if there is such a handler.
    runsc: Option<Installed>,
}

impl Kit {
    pub async fn prepare(tools: &Tools) -> Result<Self> {
        let (plugins, busybox, cri_tools) =
            tokio::try_join!(Plugins::fetch(), busybox::busybox(), go_tools::CRI.build())?;
        let directory = target().join("e2e");
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let images = directory.join(format!("cri-images-{}.tar", std::process::id()));
        images::write(tools, &busybox, &images)?;
        Ok(Self {
            plugins,
            busybox,
            cri_tools,
            images,
            runsc: None,
        })
    }

    /// Lets containerds have the handler `gvisor`.
    pub async fn install_runsc(&mut self) -> Result<()> {
        self.runsc = Some(Installed::new(&prepare::gvisor().await?.join("runsc"))?);
        Ok(())
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.images) {
            eprintln!("remove {}: {error}", self.images.display());
        }
    }
}

/// One running containerd with CRI.
pub struct CriDaemon {
    daemon: Daemon,
}

impl Deref for CriDaemon {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl CriDaemon {
    /// Starts one and waits until CRI has the images.
    pub async fn start(tools: &Tools, kit: &Kit, version: Version) -> Result<Self> {
        Self::start_with(tools, kit, version, "debug").await
    }

    /// The same with a log of that level.
    pub async fn start_with(tools: &Tools, kit: &Kit, version: Version, log_level: &'static str) -> Result<Self> {
        Self::start_through(tools, kit, version, log_level, |_| Vec::new()).await
    }

    /// The same, started through a command that starts the command behind it; it is told the containerd's directory.
    pub async fn start_through(
        tools: &Tools,
        kit: &Kit,
        version: Version,
        log_level: &'static str,
        launcher: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Self> {
        let directory = new_directory()?;
        // Else crictl looks for one elsewhere, and says on stderr, which is the container's, that it did.
        let file = directory.join(CRICTL);
        std::fs::write(&file, "debug: false\n").with_context(|| format!("write {}", file.display()))?;
        let own_network = [
            "nsenter".to_owned(),
            format!("--net={}", directory.join("netns").display()),
        ];
        let network = directory.join("netns");
        let conf = directory.join("cni");
        network::write_conflist(&conf, &directory.join("ipam"))?;
        network::make_namespace(&network, &kit.busybox).await?;
        let setup = Setup {
            log_level,
            cri: Some(configuration(
                version,
                &kit.plugins.directory,
                &conf,
                kit.runsc.as_ref(),
                &directory.join(CDI),
            )),
            launcher: own_network.into_iter().chain(launcher(&directory)).collect(),
            path: vec![kit.plugins.iptables.clone(), kit.cri_tools.clone()],
        };
        let daemon = Daemon::start_in(directory, tools, version, setup).await?;
        daemon.import(NAMESPACE, &kit.images).await?;
        let started = Self { daemon };
        started.wait_for_images().await?;
        Ok(started)
    }

    /// `crictl`, talking to this containerd from its own network.
    pub fn crictl(&self) -> tokio::process::Command {
        let mut command = self.launch("crictl");
        let endpoint = self.endpoint();
        command.arg("--config").arg(self.directory().join(CRICTL));
        command.args([
            "--timeout",
            "60s",
            "--runtime-endpoint",
            &endpoint,
            "--image-endpoint",
            &endpoint,
        ]);
        command.kill_on_drop(true);
        command
    }

    /// Where it looks for specifications of devices.
    pub fn cdi_directory(&self) -> PathBuf {
        self.directory().join(CDI)
    }

    /// Where CRI listens, as its clients write it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.grpc_address().display())
    }

    /// CRI learns of imported images from events.
    async fn wait_for_images(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let output = self
                .crictl()
                .arg("images")
                .output()
                .await
                .context("run crictl images")?;
            let text = String::from_utf8_lossy(&output.stdout);
            if text.contains("predefined-group") && text.contains("nucleus.test/pause") {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!(
                    "CRI does not see the imported images after 60 s: {text}{errors}\n{}",
                    self.log_tail(30)
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// crictl's configuration, below containerd's directory.
const CRICTL: &str = "crictl.yaml";

/// Specifications of devices, below containerd's directory.
const CDI: &str = "cdi";

/// Not allowed to lower its score, containerd must not try to give containers a lower one; pods' network namespaces
/// stay below its own directory; limits of huge pages are passed on, where there is a controller for them.
const COMMON: &str =
    "restrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\ndisable_hugetlb_controller = false\n";

/// The shim makes the sandbox, so that nobody needs the pause image.
const OWN_SANDBOX: &str = "sandboxer = \"shim\"\ndisable_pause_image_pull = true\n";

fn configuration(version: Version, plugins: &Path, conf: &Path, runsc: Option<&Installed>, cdi: &Path) -> String {
    let (runtime, before, bin_dir) = match version {
        Version::V2 => (
            "io.containerd.cri.v1.runtime",
            format!(
                "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{}\"\n\n\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\n{COMMON}cdi_spec_dirs = [\"{}\"]\n",
                images::PAUSE,
                cdi.display()
            ),
            format!("bin_dirs = [\"{}\"]", plugins.display()),
        ),
        Version::V1 => (
            "io.containerd.grpc.v1.cri",
            format!(
                "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{}\"\n{COMMON}",
                images::PAUSE
            ),
            format!("bin_dir = \"{}\"", plugins.display()),
        ),
    };
    let gvisor = runsc.map_or_else(String::new, |runsc| {
        let handler = format!("plugins.\"{runtime}\".containerd.runtimes.gvisor");
        format!(
            "\n[{handler}]\nruntime_type = \"io.containerd.nucleus.v2\"\n[{handler}.options]\nruntime = \"gvisor\"\n\
             [{handler}.options.gvisor]\npath = \"{}\"\n",
            runsc.runsc().display()
        )
    });
    let sandboxed = match version {
        Version::V1 => String::new(),
        Version::V2 => format!(
            "\n[plugins.\"{runtime}\".containerd.runtimes.{}]\nruntime_type = \"io.containerd.nucleus.v2\"\n\
             pod_annotations = [\"nucleus.dev/*\"]\n{OWN_SANDBOX}\n\
             [plugins.\"{runtime}\".containerd.runtimes.gvisor-sandboxed]\n\
             runtime_type = \"io.containerd.nucleus.v2\"\n{OWN_SANDBOX}\
             [plugins.\"{runtime}\".containerd.runtimes.gvisor-sandboxed.options]\nruntime = \"gvisor\"\n",
            Runtime::Sandboxed.short_name()
        ),
    };
    format!(
        r#"{before}
[plugins."{runtime}".cni]
{bin_dir}
conf_dir = "{conf}"

[plugins."{runtime}".containerd]
default_runtime_name = "runc"

[plugins."{runtime}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."{runtime}".containerd.runtimes.nucleus]
runtime_type = "io.containerd.nucleus.v2"
pod_annotations = ["nucleus.dev/*"]
{sandboxed}{gvisor}"#,
        conf = conf.display()
    )
}
