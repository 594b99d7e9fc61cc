//! What kubelet relies on beyond critest: sentences about pods, each tried with both handlers.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::context::Runtime;
use crate::harness::Tally;
use crate::{processes, same};

use super::daemon::CriDaemon;
use super::images::BUSYBOX;
use super::pods::Cri;
use super::sandboxes;

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One sentence.
pub struct Behaviour {
    pub name: &'static str,
    run: for<'a> fn(&'a Cri<'a>) -> Outcome<'a>,
    /// Why it is not tried on runc, or nothing.
    differs: &'static str,
    /// Why it is not tried on containerd 1.6, or nothing.
    since_containerd_2: &'static str,
    /// Why gVisor is not asked it, or nothing.
    gvisor: &'static str,
    /// The one handler that it is about, where it is about one, and what it is about.
    alone: Option<(Runtime, &'static str)>,
}

macro_rules! behaviour {
    ($name:literal, $run:path $(, differs: $differs:literal)? $(, since_2: $since:literal)? $(, gvisor: $gvisor:literal)?
        $(, alone: $alone:expr)?) => {
        Behaviour {
            name: $name,
            run: |cri| Box::pin($run(cri)),
            differs: concat!("" $(, $differs)?),
            since_containerd_2: concat!("" $(, $since)?),
            gvisor: concat!("" $(, $gvisor)?),
            alone: [$(Some($alone),)? None][0],
        }
    };
}

const OWN_SANDBOX: &str = "it is about pods without a pause container";

/// All of them; those that disturb others stand last.
pub const BEHAVIOURS: [Behaviour; 24] = [
    behaviour!(
        "a native pod and one in a sentry run side by side, each on its own kernel",
        side_by_side, alone: (Runtime::Gvisor, "it is about two kernels")
    ),
    behaviour!("an exec that takes too long leaves no process behind", exec_timeout),
    behaviour!("a container that uses too much memory is OOMKilled", oom_killed),
    behaviour!(
        "a container that heeds its stop signal ends with its own code",
        graceful_stop
    ),
    behaviour!("a container that does not is killed when its time is over", forced_stop),
    behaviour!("containers come and go in a pod that stays", restarts),
    behaviour!("limits of a running container can be changed", update,
        gvisor: "the sentry makes cgroup files of its own up; that the limits hold is shown by the suite gvisor"),
    behaviour!("containers and pods have statistics", statistics),
    behaviour!("a container can share another one's processes", target_processes,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a recursive read-only mount is read-only all the way down", recursive_read_only,
        since_2: "1.6 does not know recursive read-only mounts", gvisor: "not claimed: containerd refuses it"),
    behaviour!("an image can be a volume", image_volume, since_2: "1.6 does not know image volumes"),
    behaviour!("a pod in a user namespace sees its volumes as root", user_namespace,
        differs: "runc before 1.2 cannot map the ids of volumes", since_2: "1.6 does not know user namespaces",
        gvisor: "not claimed: containerd refuses it"),
    behaviour!("a pod's containers share its memory and its names", sandboxes::shared,
        gvisor: "a sentry's /proc has no namespaces that could be compared"),
    behaviour!("a pod has its own name servers and hosts", sandboxes::names),
    behaviour!("who is left behind in a pod that shares its processes is reaped", sandboxes::reaped,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a pod's kernel settings hold in its containers", sandboxes::settings,
        gvisor: "the sentry has no such settings: refused by name"),
    behaviour!("a pod can have the host's namespaces", sandboxes::of_host,
        gvisor: "the sentry keeps them inside: refused by name"),
    behaviour!("a container that asks for its pod's processes never gets the host's", sandboxes::no_host_processes,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a sandbox of the shim's is one process that has no right to anything", sandboxes::own_process,
        alone: (Runtime::Sandboxed, OWN_SANDBOX)),
    behaviour!("a sandbox of the shim's and a sentry exclude each other by name", sandboxes::no_sentry,
        alone: (Runtime::Sandboxed, OWN_SANDBOX)),
    behaviour!("the handler tells what it can do", features,
        differs: "what this distribution's runc can do is another thing", since_2: "1.6 does not ask",
        gvisor: "that nothing is claimed is shown by the suite gvisor"),
    behaviour!("a pod whose first process was killed is not ready, and can be removed", sandboxes::first_process_killed,
        gvisor: "its first process is the sentry: the suite gvisor kills such, in churn/"),
    behaviour!("pods live on while containerd starts again", containerd_restart),
    behaviour!(
        "a pod whose shim was killed is not ready, and can be removed",
        shim_killed
    ),
];

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Tries those whose names match, one after another.
pub async fn run(daemon: &CriDaemon, runtime: Runtime, filter: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    for (number, behaviour) in BEHAVIOURS.iter().enumerate().filter(|(_, one)| one.is_wanted(filter)) {
        let place = format!("{}, {}", runtime.short_name(), daemon.version.name());
        let cri = Cri::new(daemon, runtime, number)?;
        let reasons = [
            (runtime == Runtime::Runc, behaviour.differs),
            (!cri.is_containerd_2(), behaviour.since_containerd_2),
            (runtime == Runtime::Gvisor, behaviour.gvisor),
            behaviour
                .alone
                .map_or((false, ""), |(alone, about)| (runtime != alone, about)),
        ];
        if let Some((_, reason)) = reasons.into_iter().find(|(there, reason)| *there && !reason.is_empty()) {
            println!("skip  pods/{} ({place}): {reason}", behaviour.name);
            tally.skipped += 1;
            continue;
        }
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(LIMIT, (behaviour.run)(&cri)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow!("not done after {} s", LIMIT.as_secs())),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("ok    pods/{} ({place}) {seconds:.2} s", behaviour.name);
                tally.passed += 1;
            }
            Err(error) => {
                let text = format!("{error:#}").replace('\n', "\n      ");
                println!("FAIL  pods/{} ({place}) {seconds:.2} s\n      {text}", behaviour.name);
                tally.failed += 1;
                // What it left is no other's concern.
                cri.remove_all().await?;
            }
        }
    }
    Ok(tally)
}

impl Behaviour {
    pub fn is_wanted(&self, filter: &[String]) -> bool {
        let title = format!("pods/{}", self.name);
        filter.is_empty() || filter.iter().any(|words| title.contains(words.as_str()))
    }
}

fn plain(_: &mut Value) {}

const FOREVER: [&str; 2] = ["sleep", "100000"];

async fn side_by_side(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let inside = pod.start(&FOREVER, plain).await?;
    let native = Cri::beside(cri, Runtime::Nucleus);
    let other = native.pod(plain).await?;
    let outside = other.start(&FOREVER, plain).await?;
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    same!(outside.sh("uname -r").await?.ok()?, host);
    ensure!(inside.sh("uname -r").await?.ok()? != host, "it is the host's kernel");
    other.remove().await?;
    pod.remove().await
}

async fn exec_timeout(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let output = container.exec(1, &["sleep", "4321"]).await?;
    ensure!(output.code != 0, "it ended well: {output:?}");
    cri.eventually("what timed out is gone", async || {
        Ok(container.sh("pgrep -f 'sleep 432[1]' | wc -l").await?.ok()? == "0")
    })
    .await?;
    pod.remove().await
}

async fn oom_killed(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let limited = |config: &mut Value| {
        config["linux"]["resources"] = json!({"memory_limit_in_bytes": 32 << 20});
    };
    let container = pod.start(&["probe", "memory", "200"], limited).await?;
    let status = container.ended().await?;
    same!(status["reason"], json!("OOMKilled"));
    same!(status["exitCode"], json!(137));
    pod.remove().await
}

async fn graceful_stop(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    cri.eventually("it listens", async || Ok(container.log()?.contains("ready")))
        .await?;
    container.stop(200).await?;
    same!(container.ended().await?["exitCode"], json!(3));
    pod.remove().await
}

async fn forced_stop(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    cri.eventually("it listens", async || Ok(container.log()?.contains("ready")))
        .await?;
    let begun = Instant::now();
    container.stop(2).await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(2),
        "it had only {:?}",
        begun.elapsed()
    );
    same!(container.ended().await?["exitCode"], json!(137));
    pod.remove().await
}

async fn restarts(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let steady = pod.start(&FOREVER, plain).await?;
    for attempt in 0..5 {
        let script = format!("exit {attempt}");
        let container = pod
            .start(&["sh", "-c", &script], |config| {
                config["metadata"] = json!({"name": "again", "attempt": attempt});
            })
            .await?;
        let status = container.ended().await?;
        same!(status["exitCode"], json!(attempt));
        same!(
            status["reason"],
            json!(if attempt == 0 { "Completed" } else { "Error" })
        );
        container.remove().await?;
    }
    ensure!(pod.is_ready().await?, "the pod is not ready any more");
    same!(steady.sh("echo here").await?.ok()?, "here");
    pod.remove().await
}

async fn update(cri: &Cri<'_>) -> Result<()> {
    const LIMIT: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let pod = cri.pod(plain).await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["linux"]["resources"] =
                json!({"memory_limit_in_bytes": 64 << 20, "cpu_period": 100_000, "cpu_quota": 50_000});
        })
        .await?;
    same!(container.sh(LIMIT).await?.ok()?, (64 << 20).to_string());
    for mebibytes in [128_u64, 32] {
        let bytes = (mebibytes << 20).to_string();
        let output = cri.crictl(&["update", "--memory", &bytes, &container.id]).await?;
        output.ok()?;
        same!(container.sh(LIMIT).await?.ok()?, bytes);
    }
    pod.remove().await
}

async fn statistics(cri: &Cri<'_>) -> Result<()> {
    let pod = cri
        .pod(|config| config["linux"]["cgroup_parent"] = json!("/k8s.io"))
        .await?;
    let container = pod.start(&["probe", "memory", "20"], plain).await?;
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    cri.eventually("the container's figures are those of 20 MiB", async || {
        let stats = cri
            .crictl(&["stats", "--output", "json", "--id", &container.id])
            .await?
            .json()?;
        let stats = &stats["stats"][0];
        let memory = number(&stats["memory"]["workingSetBytes"]["value"]);
        Ok(memory > 20 << 20 && number(&stats["cpu"]["usageCoreNanoSeconds"]["value"]) > 0)
    })
    .await?;
    if cri.is_containerd_2() {
        cri.eventually("the pod's figures have the container", async || {
            let stats = cri
                .crictl(&["statsp", "--output", "json", "--id", &pod.id])
                .await?
                .json()?;
            let linux = &stats["stats"][0]["linux"];
            Ok(linux["containers"][0]["attributes"]["id"] == container.id.as_str())
        })
        .await?;
    }
    pod.remove().await
}

async fn target_processes(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let own = |config: &mut Value| {
        // NamespaceMode CONTAINER
        config["linux"]["security_context"] = json!({"namespace_options": {"pid": 1}});
    };
    let first = pod.start(&["sleep", "7777"], own).await?;
    let debug = pod
        .start(&FOREVER, |config| {
            // NamespaceMode TARGET
            config["linux"]["security_context"] = json!({"namespace_options": {"pid": 3, "target_id": first.id}});
        })
        .await?;
    same!(
        debug.sh("cat /proc/1/cmdline | tr '\\0' ' '").await?.ok()?,
        "sleep 7777"
    );
    debug.stop(0).await?;
    ensure!(
        first.inspect().await?["status"]["state"] == "CONTAINER_RUNNING",
        "the target ended as well"
    );
    pod.remove().await
}

async fn recursive_read_only(cri: &Cri<'_>) -> Result<()> {
    let volume = cri.directory.join("volume");
    let below = volume.join("below");
    std::fs::create_dir_all(&below).context("make a volume")?;
    rustix::mount::mount("e2e", &below, "tmpfs", rustix::mount::MountFlags::empty(), None).context("mount in it")?;
    let outcome = recursive_read_only_with(cri, &volume).await;
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH).context("unmount it")?;
    outcome
}

async fn recursive_read_only_with(cri: &Cri<'_>, volume: &std::path::Path) -> Result<()> {
    let pod = cri.pod(plain).await?;
    for recursive in [false, true] {
        let container = pod
            .start(&FOREVER, |config| {
                config["mounts"] = json!([{"host_path": volume, "container_path": "/data", "readonly": true,
                    "recursive_read_only": recursive}]);
            })
            .await?;
        let at_top = container.sh("touch /data/file").await?;
        ensure!(
            at_top.stderr.contains("Read-only file system"),
            "at its top: {at_top:?}"
        );
        let below = container.sh("touch /data/below/file").await?;
        same!(
            below.stderr.contains("Read-only file system"),
            recursive,
            "below, recursive = {recursive}: {below:?}"
        );
    }
    pod.remove().await
}

async fn image_volume(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["mounts"] = json!([{"container_path": "/image", "image": {"image": BUSYBOX}, "readonly": true}]);
        })
        .await?;
    same!(
        container.sh("/image/bin/echo from the volume").await?.ok()?,
        "from the volume"
    );
    let written = container.sh("touch /image/file").await?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    pod.remove().await
}

async fn user_namespace(cri: &Cri<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let volume = cri.directory.join("volume");
    std::fs::create_dir_all(&volume).context("make a volume")?;
    std::fs::write(volume.join("seed"), "").context("write to it")?;
    let map = json!([{"host_id": 100_000, "container_id": 0, "length": 65_536}]);
    let options = json!({"userns_options": {"mode": 0, "uids": map, "gids": map}});
    let pod = cri
        .pod(|config| config["linux"]["security_context"] = json!({"namespace_options": options}))
        .await?;
    let container = pod
        .start(&FOREVER, |config| {
            config["linux"]["security_context"] = json!({"namespace_options": options});
            config["mounts"] = json!([{"host_path": volume, "container_path": "/data",
                "uidMappings": map, "gidMappings": map}]);
        })
        .await?;
    let fields: Vec<String> = container
        .sh("cat /proc/self/uid_map")
        .await?
        .ok()?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    same!(fields, ["0", "100000", "65536"]);
    same!(
        container.sh("stat -c %u:%g /data/seed /bin/sh").await?.ok()?,
        "0:0\n0:0"
    );
    container.sh("touch /data/new").await?.ok()?;
    same!(
        std::fs::metadata(volume.join("new"))
            .context("look at what it wrote")?
            .uid(),
        0
    );
    let pid = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    let status = processes::text(u32::try_from(pid)?, "status");
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:\t"))
        .unwrap_or_default();
    ensure!(uid.starts_with("100000\t"), "it runs as {uid}");
    pod.remove().await
}

async fn features(cri: &Cri<'_>) -> Result<()> {
    let info = cri.crictl(&["info"]).await?.json()?;
    let handlers = info["runtimeHandlers"].as_array().context("no runtimeHandlers")?;
    let nucleus = handlers.iter().find(|handler| handler["name"] == "nucleus");
    let features = &nucleus.context("no handler nucleus")?["features"];
    for feature in ["recursive_read_only_mounts", "user_namespaces"] {
        same!(features[feature], json!(true), "{feature} of {features}");
    }
    Ok(())
}

async fn containerd_restart(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let script = "while :; do echo line; sleep 0.1; done";
    let container = pod.start(&["sh", "-c", script], plain).await?;
    let before = container.inspect().await?["info"]["pid"].clone();
    cri.daemon.kill().await?;
    cri.daemon.start_again().await?;
    cri.eventually("CRI answers", async || Ok(cri.crictl(&["pods"]).await?.code == 0))
        .await?;
    ensure!(pod.is_ready().await?, "the pod is not ready any more");
    same!(container.inspect().await?["info"]["pid"], before);
    same!(container.sh("echo here").await?.ok()?, "here");
    let lines = container.log()?.lines().count();
    cri.eventually("its log goes on", async || Ok(container.log()?.lines().count() > lines))
        .await?;
    container.stop(0).await?;
    same!(container.ended().await?["exitCode"], json!(137));
    pod.remove().await
}

async fn shim_killed(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, plain).await?;
    let pid = container.inspect().await?["info"]["pid"].as_u64().context("no pid")?;
    let shim = processes::shim_of(u32::try_from(pid)?).context("no shim")?;
    processes::kill(shim);
    container.ended().await?;
    cri.eventually("the pod is not ready", async || Ok(!pod.is_ready().await?))
        .await?;
    pod.remove().await
}
