//! dockerd, private: its data are kept from run to run, because the node image is in them; all else ends with the
//! namespaces.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use super::{Setting, make_directory, text, write};
use crate::prepare::step;

pub struct Engine {
    path: String,
    libraries: String,
    address: String,
    home: PathBuf,
    dockerd: Child,
}

impl Engine {
    /// Starts it and removes what a run that was killed has left in its data.
    pub async fn start(setting: &Setting) -> Result<Self> {
        let directory = &setting.directory;
        own(directory)?;
        run(&mut busybox(setting, &["ip", "link", "set", "lo", "up"])).await?;
        let runtime = directory.join("lesser-runc");
        let program = std::env::current_exe().context("find this program")?;
        write(
            &runtime,
            format!(
                "#!/bin/sh\nexec {} lesser-runtime {}/runc -- \"$@\"\n",
                text(&program),
                text(&setting.runc)
            ),
        )?;
        std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .context("chmod the runtime")?;
        let unpacked = |below: &str| text(&setting.packages.join(below));
        let path = [
            unpacked("usr/sbin"),
            unpacked("usr/bin"),
            text(&setting.iptables),
            text(&setting.runc),
            text(&setting.kind),
            text(&setting.helm),
            text(&setting.kubernetes),
            "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ]
        .join(":");
        let libraries = [unpacked("usr/lib/x86_64-linux-gnu"), unpacked("lib/x86_64-linux-gnu")].join(":");
        let home = directory.join("home");
        make_directory(&home)?;
        make_directory(&setting.data)?;
        let address = format!("unix://{}", text(&directory.join("docker.sock")));
        let log = std::fs::File::create(directory.join("dockerd.log")).context("make dockerd's log")?;
        let mut dockerd = Command::new(setting.packages.join("usr/sbin/dockerd"));
        dockerd
            .args(["--host", &address, "--data-root", &text(&setting.data)])
            .args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"])
            .args(["--config-file", &text(&directory.join("daemon.json"))])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &format!("/{}", setting.cgroup)])
            .args([
                "--add-runtime",
                &format!("lesser={}", text(&runtime)),
                "--default-runtime",
                "lesser",
            ])
            .args(["--oom-score-adjust", "0", "--storage-driver", "overlay2"])
            .env("PATH", &path)
            .env("LD_LIBRARY_PATH", &libraries)
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        write(&directory.join("daemon.json"), "{}")?;
        let dockerd = dockerd.spawn().context("start dockerd")?;
        let mut engine = Self {
            path,
            libraries,
            address,
            home,
            dockerd,
        };
        engine.wait().await?;
        engine.clean().await?;
        Ok(engine)
    }

    /// A program that talks to it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("env");
        command
            .arg(program)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .env("DOCKER_HOST", &self.address)
            // buildx may not be there, and wants more than a Dockerfile of three lines needs.
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if program == "docker" {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        command
    }

    /// `docker` with arguments; what it says.
    pub async fn docker(&self, args: &[&str]) -> Result<String> {
        run(self.command("docker").args(args)).await
    }

    /// Loads the node image unless it is there, and forgets older ones.
    pub async fn load(&self, image: &super::node_image::NodeImage) -> Result<()> {
        let there = self.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await?;
        if there.lines().any(|name| name == image.name) {
            return Ok(());
        }
        for older in there.lines().filter(|name| !name.contains("<none>")) {
            self.docker(&["rmi", "--force", older]).await?;
        }
        let (input, output) = std::io::pipe().context("make a pipe")?;
        let image = image.clone();
        let writer = tokio::task::spawn_blocking(move || image.write(output));
        let mut load = self.command("docker");
        load.arg("load").stdin(input);
        let loaded = load.output().await.context("run docker load")?;
        drop(load);
        let written = writer.await.context("write the node image")?;
        if !loaded.status.success() {
            bail!("docker load: {}", String::from_utf8_lossy(&loaded.stderr).trim());
        }
        written
    }

    async fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.docker(&["version"]).await {
            if let Some(status) = self.dockerd.try_wait().context("look at dockerd")? {
                bail!("dockerd has ended: {status}; see dockerd.log");
            }
            if begun.elapsed() > Duration::from_secs(120) {
                return Err(error.context("dockerd does not answer"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn clean(&self) -> Result<()> {
        for container in self.docker(&["ps", "--all", "--quiet"]).await?.lines() {
            self.docker(&["rm", "--force", "--volumes", container]).await?;
        }
        self.docker(&["volume", "prune", "--force"]).await?;
        self.docker(&["network", "prune", "--force"]).await?;
        self.docker(&["image", "prune", "--force"]).await.map(drop)
    }

    /// Removes what is left and ends it as it wants to be ended.
    pub async fn stop(mut self) -> Result<()> {
        self.clean().await?;
        let pid = self.dockerd.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid
            .and_then(rustix::process::Pid::from_raw)
            .context("dockerd has ended")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("end dockerd")?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.dockerd.wait()).await;
        ended
            .context("dockerd does not end")?
            .context("wait for dockerd")
            .map(drop)
    }
}

/// What dockerd writes beside its data goes elsewhere: only this mount namespace sees these.
fn own(directory: &Path) -> Result<()> {
    use rustix::mount::{MountFlags, mount};
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("mount a tmpfs on /run")?;
    let (upper, work) = (directory.join("etc"), directory.join("etc-work"));
    make_directory(&upper)?;
    make_directory(&work)?;
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", text(&upper), text(&work));
    let options = CString::new(options).context("write overlayfs' options")?;
    mount("overlay", "/etc", "overlay", MountFlags::empty(), options.as_c_str()).context("mount an overlay on /etc")
}

fn busybox(setting: &Setting, args: &[&str]) -> Command {
    let mut command = Command::new(&setting.busybox);
    command.args(args);
    command
}

/// Runs a command; its standard output, or as an error what it wrote to the other one.
pub async fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = output.await.with_context(|| format!("start {:?}", command.as_std()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let args: Vec<_> = command.as_std().get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!(
            "{}: {}\n{text}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(text)
}

/// The same with a line before and after, as what is prepared has.
pub async fn told(what: &str, command: &mut Command) -> Result<String> {
    step(what, command).await
}
