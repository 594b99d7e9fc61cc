//! The stream of events that kubelet goes by where its gate EventedPLEG is open.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Child;

use crate::same;

use super::pods::{Cri, plain};

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(20);

const CREATED: &str = "CONTAINER_CREATED_EVENT";
const STARTED: &str = "CONTAINER_STARTED_EVENT";
const STOPPED: &str = "CONTAINER_STOPPED_EVENT";
const DELETED: &str = "CONTAINER_DELETED_EVENT";

/// Whoever listens to all events of a containerd.
struct Listener {
    _child: Child,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Listener {
    fn start(cri: &Cri<'_>) -> Result<Self> {
        let mut command = cri.daemon.crictl();
        command.args(["events", "--output", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start crictl events")?;
        let mut output = child.stdout.take().context("no output")?;
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = text.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = output.read(&mut buffer).await {
                if let Ok(mut text) = sink.lock() {
                    text.extend_from_slice(&buffer[..count]);
                }
            }
        });
        Ok(Self { _child: child, text })
    }

    /// The events of a pod so far.
    fn of_pod(&self, pod: &str) -> Vec<Value> {
        let text = self.text.lock().map(|text| text.clone()).unwrap_or_default();
        // The last one may be on its way.
        let all = serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .map_while(Result::ok);
        all.filter(|event: &Value| {
            event["containerId"] == pod || event["podSandboxStatus"]["id"] == pod || {
                let statuses = event["containersStatuses"].as_array();
                statuses.is_some_and(|statuses| statuses.iter().any(|status| status["podSandboxId"] == pod))
            }
        })
        .collect()
    }
}

/// Where in the stream an event is, and the event.
fn find<'e>(events: &'e [Value], id: &str, kind: &str) -> Result<(usize, &'e Value)> {
    let mut events = events.iter().enumerate();
    let found = events.find(|(_, event)| event["containerId"] == id && event["containerEventType"] == kind);
    found.with_context(|| format!("no {kind} of {id}"))
}

/// What an event says of a container's state.
fn status<'e>(event: &'e Value, id: &str) -> Result<&'e Value> {
    let mut statuses = event["containersStatuses"].as_array().into_iter().flatten();
    let found = statuses.find(|status| status["id"] == id);
    found.with_context(|| format!("nothing of {id} in {event}"))
}

/// Several containers at once, of which each ends when it is told, with a code of its own.
pub async fn in_order(cri: &Cri<'_>) -> Result<()> {
    let listener = Listener::start(cri)?;
    let volume = cri.directory.join("signs");
    std::fs::create_dir_all(&volume).context("make a volume")?;
    let pod = cri.pod(plain).await?;
    let numbers = [1, 2, 3, 4];
    let starts = numbers.map(|number| {
        let script = format!("until [ -e /signs/{number} ]; do sleep 0.05; done; exit {number}");
        let (pod, volume) = (&pod, &volume);
        async move {
            pod.start(&["sh", "-c", &script], |config| {
                config["mounts"] = json!([{"host_path": volume, "container_path": "/signs"}]);
            })
            .await
        }
    });
    let containers = try_join_all(starts).await?;
    let count = |kind: &str| {
        let events = listener.of_pod(&pod.id);
        let of_kind = events.iter().filter(|event| event["containerEventType"] == kind);
        of_kind.count()
    };
    cri.eventually("all are told to have started", async || {
        Ok(count(STARTED) == 1 + containers.len())
    })
    .await?;
    for (number, told) in numbers.iter().zip(1..) {
        std::fs::write(volume.join(number.to_string()), "").context("give a sign")?;
        cri.eventually("the end of one is told", async || Ok(count(STOPPED) == told))
            .await?;
    }
    try_join_all(containers.iter().map(|container| container.remove())).await?;
    cri.eventually("their removal is told", async || Ok(count(DELETED) == containers.len()))
        .await?;
    pod.remove().await?;
    let last = || find(&listener.of_pod(&pod.id), &pod.id, DELETED).is_ok();
    let waiting = cri.eventually("the end of everything is told", async || Ok(last()));
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .context("the pod's removal is not told")??;

    let events = listener.of_pod(&pod.id);
    let mut ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    ids.push(&pod.id);
    for id in &ids {
        let own: Vec<&Value> = events.iter().filter(|event| event["containerId"] == *id).collect();
        let kinds: Vec<_> = own
            .iter()
            .map(|event| event["containerEventType"].as_str().unwrap_or_default())
            .collect();
        same!(kinds, [CREATED, STARTED, STOPPED, DELETED], "{id}");
        let times: Vec<i64> = own.iter().map(|event| number(&event["createdAt"])).collect();
        ensure!(times[0] > 0 && times.is_sorted(), "the times of {id} are {times:?}");
    }
    // The pod is there before them and goes after them.
    let first = find(&events, &pod.id, STARTED)?.0;
    let last = find(&events, &pod.id, STOPPED)?.0;
    for (container, code) in containers.iter().zip(numbers) {
        let id = container.id.as_str();
        let (at, created) = find(&events, id, CREATED)?;
        ensure!(first < at, "a container was created before its pod was started");
        same!(status(created, id)?["state"], json!("CONTAINER_CREATED"));
        let (_, started) = find(&events, id, STARTED)?;
        let running = status(started, id)?;
        same!(running["state"], json!("CONTAINER_RUNNING"));
        ensure!(
            number(&running["startedAt"]) > 0,
            "it was started at no time: {running}"
        );
        let (_, stopped) = find(&events, id, STOPPED)?;
        let exited = status(stopped, id)?;
        same!(exited["state"], json!("CONTAINER_EXITED"));
        same!(exited["exitCode"], json!(code));
        ensure!(
            number(&exited["finishedAt"]) >= number(&running["startedAt"]),
            "it ended before it began: {exited}"
        );
        // One after another: who has had no sign is said to run.
        let others = containers.iter().zip(numbers).filter(|(_, other)| *other > code);
        for (other, _) in others {
            same!(status(stopped, &other.id)?["state"], json!("CONTAINER_RUNNING"));
        }
        for event in [created, started, stopped] {
            same!(event["podSandboxStatus"]["state"], json!("SANDBOX_READY"));
        }
        let (at, deleted) = find(&events, id, DELETED)?;
        ensure!(at < last, "a container was deleted after its pod was stopped");
        ensure!(status(deleted, id).is_err(), "what was deleted has a status");
    }
    same!(events[last]["podSandboxStatus"]["state"], json!("SANDBOX_NOTREADY"));
    Ok(())
}

/// Protobuf's JSON has numbers of 64 bits as texts.
fn number(value: &Value) -> i64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value.as_i64()).unwrap_or_default()
}
