//! `procMount`: the paths that kubelet has masked and made read-only, and /proc without either.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::context::Runtime;
use crate::same;

use super::pods::{Cri, FOREVER, Pod, PodContainer, plain};

/// What kubelet sends for `procMount: Default`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn default(config: &mut Value) {
    config["linux"]["security_context"] = json!({"masked_paths": MASKED, "readonly_paths": READ_ONLY});
}

/// Empty lists, which is what kubelet sends for `procMount: Unmasked`.
fn empty(config: &mut Value) {
    config["linux"]["security_context"] = json!({"masked_paths": [], "readonly_paths": []});
}

/// What is mounted below /proc.
async fn below_proc(container: &PodContainer<'_, '_>) -> Result<String> {
    let output = container.sh("grep -o ' /proc/[^ ]*' /proc/mounts | sort; true").await?;
    Ok(output.ok()?.to_owned())
}

pub async fn by_default(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&FOREVER, default).await?;
    let open = pod.start(&FOREVER, empty).await?;
    let mut seen = 0;
    for path in MASKED {
        // What the kernel does not have is not there in either.
        let look = format!(
            "if [ -d {path} ]; then ls -A {path}; elif [ -e {path} ]; then dd if={path} bs=64 count=1 2>/dev/null; fi"
        );
        let masked = container.sh(&look).await?;
        same!(masked.stdout, "", "{path}");
        seen += usize::from(!open.sh(&look).await?.stdout.is_empty());
    }
    ensure!(seen > 0, "nothing of it can be read where it is not masked");
    for path in READ_ONLY {
        let write = format!("[ ! -e {path} ] || touch {path}");
        let written = container.sh(&write).await?;
        ensure!(
            written.code == 0 && written.stderr.is_empty() || written.stderr.contains("Read-only file system"),
            "{path}: {written:?}"
        );
    }
    let written = container.sh("echo other > /proc/sys/kernel/domainname").await?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    pod.remove().await
}

pub async fn unmasked(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let masked = pod.start(&FOREVER, default).await?;
    ensure!(
        below_proc(&masked).await?.contains("/proc/keys") || cri.runtime == Runtime::Gvisor,
        "nothing is masked by default"
    );
    let container = pod.start(&FOREVER, empty).await?;
    same!(below_proc(&container).await?, "");
    pod.remove().await
}

/// Where it is meant for: containers that make containers. The kernel lets who makes a user namespace mount a new /proc
/// in it if nothing of the old one is hidden. nucleus lets no one who was not given CAP_SYS_ADMIN, which the policy may
/// refuse.
pub async fn unmasked_in_user_namespace(cri: &Cri<'_>) -> Result<()> {
    // By the kernel, which finds that something is hidden; and by Landlock, unshare's own mount being the first.
    let (hidden, landlock) = ("mount: permission denied", "can't mount none on /");
    for (masked, mighty, refused) in [(false, true, ""), (true, true, hidden), (false, false, landlock)] {
        let pod = mapped_pod(cri, json!({})).await?;
        let container = pod.start(&FOREVER, mapped(masked, mighty)).await?;
        let map = container.sh("cat /proc/self/uid_map").await?;
        let fields: Vec<&str> = map.ok()?.split_whitespace().collect();
        same!(fields, ["0", "100000", "65536"]);
        same!(below_proc(&container).await?.contains("/proc/keys"), masked);
        let mounted = container
            .sh("unshare -Urmpf sh -c 'mount -t proc none /mnt && cat /mnt/self/comm'")
            .await?;
        let about = format!("masked = {masked}, CAP_SYS_ADMIN = {mighty}: {mounted:?}");
        if refused.is_empty() {
            same!(mounted.stdout, "cat", "{about}");
        } else {
            ensure!(mounted.code != 0 && mounted.stderr.contains(refused), "{about}");
        }
        // The settings of the pod's own network are its administrator's; those of the host's memory are not.
        let setting = container.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").await?;
        same!(setting.code == 0, !masked, "{setting:?}");
        let file = "/proc/sys/vm/overcommit_ratio";
        let before = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        let written = container.sh(&format!("echo 51 > {file}")).await?;
        let words = if masked {
            "Read-only file system"
        } else {
            "ermission denied"
        };
        ensure!(written.stderr.contains(words), "{written:?}");
        same!(
            std::fs::read_to_string(file).with_context(|| format!("read {file}"))?,
            before
        );
        pod.remove().await?;
    }
    let pod = mapped_pod(cri, json!({"nucleus.dev/landlock.tier": "hardened"})).await?;
    let error = match pod.start(&FOREVER, mapped(false, true)).await {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    let words = "process.capabilities: CAP_SYS_ADMIN: refused by the policy";
    ensure!(error.contains(words), "the error is {error:?}");
    pod.remove().await
}

/// A user namespace. NamespaceMode CONTAINER for processes, as kubelet has it: who joins another's gets no Landlock
/// domain by default.
fn namespace_options() -> Value {
    let map = json!([{"host_id": 100_000, "container_id": 0, "length": 65_536}]);
    json!({"pid": 1, "userns_options": {"mode": 0, "uids": map, "gids": map}})
}

async fn mapped_pod<'c, 'a>(cri: &'c Cri<'a>, annotations: Value) -> Result<Pod<'c, 'a>> {
    cri.pod(|config| {
        config["annotations"] = annotations;
        config["linux"]["security_context"] = json!({"namespace_options": namespace_options()});
    })
    .await
}

fn mapped(masked: bool, mighty: bool) -> impl FnOnce(&mut Value) {
    move |config| {
        (if masked { default } else { empty })(config);
        let context = &mut config["linux"]["security_context"];
        context["namespace_options"] = namespace_options();
        let capabilities: &[&str] = if mighty {
            &["NET_ADMIN", "SYS_ADMIN"]
        } else {
            &["NET_ADMIN"]
        };
        context["capabilities"] = json!({"add_capabilities": capabilities});
    }
}
