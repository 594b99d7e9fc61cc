//! What the shim's parent leaves to it, which is no container's business: descriptors, environment, umask
//! (CVE-2024-21626, containerd 2024-25621).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use containerd_shim_protos::api;
use serde_json::{Value, json};

use super::canary::Canary;
use super::{attacked, shown};
use crate::api::PROCESS_TYPE;
use crate::context::Ctx;
use crate::harness::Registry;
use crate::io::Capture;
use crate::same;
use crate::shim_process::{Form, Shim, any, new_bundle};
use crate::spec;

/// What `probe` saw, which wrote to this FIFO.
async fn facts(capture: &Capture) -> Result<Value> {
    let text = capture.to_end().await?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text:?}"))
}

/// Nothing of the canary's is in what a process was given.
fn is_clean(facts: &Value, canary: &Canary) -> Result<()> {
    let open: Vec<&String> = facts["fds"].as_object().context("no descriptors")?.keys().collect();
    same!(open, ["0", "1", "2"], "descriptors: {}", facts["fds"]);
    let text = facts.to_string();
    ensure!(!text.contains(&canary.word), "the shim's environment: {text}");
    ensure!(!text.contains("LD_PRELOAD"), "the shim's environment: {text}");
    same!(facts["status"]["Umask"], "0022");
    Ok(())
}

/// Files and directories below `path` that others than their owner can write to.
fn writable_for_others(path: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let stat = std::fs::symlink_metadata(&path)?;
        if !stat.is_symlink() && stat.permissions().mode() & 0o022 != 0 {
            found.push(format!("{:o} {}", stat.permissions().mode(), path.display()));
        }
        if stat.is_dir() {
            writable_for_others(&path, found)?;
        }
    }
    Ok(())
}

async fn careless(c: &Ctx) -> Result<()> {
    let canary = Canary::plant(c)?;
    let id = c.new_id();
    let stdout = |name: &str| c.directory.join(name);
    let mut config = spec::base(&c.namespace, &id);
    config["process"]["args"] = json!(["/bin/probe"]);
    spec::push(
        &mut config,
        "/mounts",
        spec::mount("/made/deep/inside", "tmpfs", "tmpfs", &["mode=755"]),
    );
    let bundle = new_bundle(c, &id, Some(config.to_string().as_bytes()))?;
    // Made under the test's own umask; only what comes from now on is the runtime's.
    let mut before = Vec::new();
    writable_for_others(&bundle, &mut before)?;
    let careless = format!(
        "umask 0; export SECRET={} LD_PRELOAD=/tmp/{}; exec 7<{} 9>>{}; exec \"$0\" \"$@\"",
        canary.word,
        canary.word,
        canary.directory.display(),
        canary.file().display(),
    );
    // What a process has that such a parent starts directly.
    let script = format!("{careless} 2>/dev/null");
    let direct = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .arg(&c.tools.probe)
        .output()
        .await?;
    let direct: Value = serde_json::from_slice(&direct.stdout)?;
    ensure!(
        direct["fds"]["7"].is_string() && direct.to_string().contains(&canary.word),
        "{direct}"
    );
    shown(1);
    let form = if c.is_containerd_2() {
        Form::Bootstrap
    } else {
        Form::Bare
    };
    let shim = Shim::start_by(c, &id, bundle.clone(), form, &careless).await?;
    let init = Capture::of_new_fifo(&stdout("init"))?;
    let request = api::CreateTaskRequest {
        stdout: stdout("init").display().to_string(),
        ..shim.create_request()
    };
    shim.task::<api::CreateTaskResponse>("Create", &request).await?;
    let exec = Capture::of_new_fifo(&stdout("exec"))?;
    let mut process = config["process"].clone();
    process["terminal"] = json!(false);
    let request = api::ExecProcessRequest {
        id: id.clone(),
        exec_id: "e".into(),
        stdout: stdout("exec").display().to_string(),
        spec: any(PROCESS_TYPE, process.to_string().as_bytes()),
        ..Default::default()
    };
    shim.task::<api::Empty>("Exec", &request).await?;
    // The exec first: init ends with what it printed.
    let start = api::StartRequest {
        id: id.clone(),
        exec_id: "e".into(),
        ..Default::default()
    };
    shim.task::<api::StartResponse>("Start", &start).await?;
    is_clean(&facts(&exec).await?, &canary).context("an exec")?;
    shim.start_task().await?;
    is_clean(&facts(&init).await?, &canary).context("init")?;
    attacked(2);
    let mut after = Vec::new();
    writable_for_others(&bundle, &mut after)?;
    after.retain(|path| !before.contains(path));
    same!(after, Vec::<String>::new(), "what others can write to");
    let socket = shim.answer.address.trim_start_matches("unix://").to_owned();
    let mode = std::fs::metadata(&socket)?.permissions().mode();
    same!(mode & 0o077, 0, "the socket's mode");
    attacked(1);
    let delete = api::DeleteRequest {
        id: id.clone(),
        exec_id: "e".into(),
        ..Default::default()
    };
    shim.task::<api::DeleteResponse>("Delete", &delete).await?;
    // Init has ended by itself.
    c.eventually("the task can be deleted", async || Ok(shim.delete().await.is_ok()))
        .await?;
    shim.end().await?;
    canary.is_untouched()
}

pub fn register(t: &mut Registry) {
    t.add(
        "a careless parent's descriptors, environment and umask reach no process of a container",
        async |c| careless(c).await,
    )
    .within(60)
    .differs("runc's shim keeps the umask that it was started with");
}
