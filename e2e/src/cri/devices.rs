//! Devices by the Container Device Interface: a specification on the node says what a container gets with a device.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::context::Runtime;
use crate::same;

use super::pods::{Cri, FOREVER, PodContainer, plain};

/// A device that no container has by itself, and what opening it does no harm to.
const HOST_DEVICE: &str = "/dev/loop-control";

const HOST_HOOKS: [(&str, &str); 4] = [
    ("createRuntime", "creating"),
    ("createContainer", "creating"),
    // runc before 1.2 still says `created`.
    ("poststart", "running"),
    ("poststop", "stopped"),
];

/// A specification of two devices, of which one has everything.
fn specification(kind: &str, directory: &Path) -> Result<Value> {
    // nucleus executes no hook through a link.
    let shell = std::fs::canonicalize("/bin/sh").context("find a shell")?;
    let hook = |name: &str| {
        let file = directory.join(name);
        // Complete or not there: a container's start may not wait for its last hook.
        let script = format!("cat > {0}.part && mv {0}.part {0}", file.display());
        json!({"hookName": name, "path": shell, "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
    };
    let mut hooks: Vec<Value> = HOST_HOOKS.iter().map(|(name, _)| hook(name)).collect();
    // Of the container's own files.
    hooks.push(json!({"hookName": "startContainer", "path": "/bin/touch", "args": ["touch", "/started"]}));
    Ok(json!({
        "cdiVersion": "0.7.0",
        "kind": kind,
        "containerEdits": {"env": ["CDI_VENDOR=nucleus"]},
        "devices": [
            {"name": "one", "containerEdits": {
                "deviceNodes": [{"path": "/dev/cdi/one", "hostPath": HOST_DEVICE, "permissions": "r",
                    "fileMode": 0o640, "uid": 0, "gid": 33}],
                "env": ["CDI_DEVICE=one", "CDI_DIRECTORY=/cdi"],
                "mounts": [{"hostPath": directory.join("library"), "containerPath": "/cdi",
                    "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]}],
                "additionalGids": [4242],
                "hooks": hooks,
            }},
            {"name": "other", "containerEdits": {
                "deviceNodes": [{"path": "/dev/cdi/other", "hostPath": "/dev/null"}],
            }},
        ],
    }))
}

pub async fn injected(cri: &Cri<'_>) -> Result<()> {
    let directory = cri.directory.join("cdi");
    std::fs::create_dir_all(directory.join("library")).context("make a directory for the device")?;
    std::fs::write(directory.join("library/lib.so"), "of the vendor\n").context("make a file for the device")?;
    let kind = "nucleus.test/device";
    let specifications = cri.daemon.cdi_directory();
    std::fs::create_dir_all(&specifications).with_context(|| format!("make {}", specifications.display()))?;
    let file = specifications.join("nucleus.json");
    std::fs::write(&file, specification(kind, &directory)?.to_string())
        .with_context(|| format!("write {}", file.display()))?;
    let name = format!("{kind}=one");
    let pod = cri.pod(plain).await?;
    let by_field = |config: &mut Value| config["CDI_devices"] = json!([{"name": name}]);
    let by_annotation = |config: &mut Value| config["annotations"] = json!({"cdi.k8s.io/e2e": name});
    let container = pod.start(&FOREVER, by_field).await?;
    has_everything(cri, &container, &directory).await?;
    let container = pod.start(&FOREVER, by_annotation).await?;
    has_everything(cri, &container, &directory).await?;
    let without = pod.start(&FOREVER, plain).await?;
    let script = "ls -d /cdi /dev/cdi; env | grep CDI_; mknod /tmp/one c 10 237; cat /tmp/one";
    let looked = without.sh(script).await?;
    same!(looked.stdout, "");
    same!(
        looked.stderr.matches("No such file or directory").count(),
        2,
        "{looked:?}"
    );
    ensure!(looked.stderr.contains("Operation not permitted"), "{looked:?}");
    let config = |config: &mut Value| config["CDI_devices"] = json!([{"name": format!("{kind}=none")}]);
    let error = match pod.create(&FOREVER, config).await {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        error.contains("unresolvable CDI devices nucleus.test/device=none"),
        "the error is {error:?}"
    );
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    pod.remove().await
}

/// Looks for all that the device `one` brings, removes the container, and looks whether its hooks ran in their order.
async fn has_everything(cri: &Cri<'_>, container: &PodContainer<'_, '_>, directory: &Path) -> Result<()> {
    let read = async |script: &str| anyhow::Ok(container.sh(script).await?.ok()?.to_owned());
    same!(
        read("stat -c '%F %a %u %g' /dev/cdi/one").await?,
        "character special file 640 0 33"
    );
    same!(read("ls /dev/cdi").await?, "one");
    // Of permissions no more than asked for, whatever its mode says.
    same!(read(": < /dev/cdi/one && echo opened").await?, "opened");
    let written = container.sh(": > /dev/cdi/one").await?;
    ensure!(written.stderr.contains("Operation not permitted"), "{written:?}");
    same!(
        read("env | grep CDI_ | sort").await?,
        "CDI_DEVICE=one\nCDI_DIRECTORY=/cdi\nCDI_VENDOR=nucleus"
    );
    same!(read("cat /cdi/lib.so").await?, "of the vendor");
    let written = container.sh("touch /cdi/file").await?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    let groups = read("id -G").await?;
    ensure!(
        groups.split(' ').any(|group| group == "4242"),
        "its groups are {groups}"
    );
    same!(read("ls /started").await?, "/started");
    container.stop(0).await?;
    container.remove().await?;
    for (hook, status) in HOST_HOOKS {
        let file = directory.join(hook);
        cri.eventually(&format!("the hook {hook} has run"), async || Ok(file.exists()))
            .await?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let state: Value = serde_json::from_str(&text).with_context(|| format!("read {hook}'s state: {text}"))?;
        same!(state["id"], json!(container.id), "{hook}");
        let as_runc = cri.runtime == Runtime::Runc && hook == "poststart" && state["status"] == "created";
        ensure!(state["status"] == status || as_runc, "{hook}: {state}");
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}
