//! containerd's events of one namespace, kept in the order in which they came.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use containerd_client::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOom, TaskPaused, TaskResumed, TaskStart,
};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::Message;
use tokio::time::sleep;

use crate::api::Api;

const READY: &str = "/e2e/ready";

/// One event, flat: fields that its kind does not have are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    pub container: String,
    /// The exec's id, or the init's own id in an exit.
    pub process: String,
    pub pid: u32,
    pub status: u32,
    pub bundle: String,
}

impl Event {
    /// `exit`, `start`, `exec-started` …
    pub fn kind(&self) -> &str {
        self.topic.trim_start_matches("/tasks/")
    }
}

/// A running subscription.
pub struct Events {
    seen: Rc<RefCell<Vec<Event>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Events {
    /// Subscribes to a namespace and returns once events arrive for certain.
    pub async fn subscribe(api: &Api, namespace: &str) -> Result<Self> {
        let request = SubscribeRequest {
            filters: vec![format!("namespace=={namespace}")],
        };
        let seen: Rc<RefCell<Vec<Event>>> = Rc::default();
        let (mut service, sink) = (api.events(), seen.clone());
        let reader = tokio::task::spawn_local(async move {
            // The reply's header comes with the first event: the call cannot be waited for outside.
            let Ok(reply) = service.subscribe(request).await else {
                return;
            };
            let mut stream = reply.into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                sink.borrow_mut().push(flat(&envelope));
            }
        });
        let events = Self { seen, reader };
        let begun = Instant::now();
        while !events.all().iter().any(|event| event.topic == READY) {
            let event = prost_types::Any {
                type_url: "containerd.events.TaskOOM".to_owned(),
                value: Vec::new(),
            };
            let request = api.request(PublishRequest {
                topic: READY.to_owned(),
                event: Some(event),
            });
            api.events().publish(request).await.context("publish an event")?;
            if begun.elapsed() > crate::node::patience(10) {
                bail!("no event comes out of the subscription");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(events)
    }

    fn all(&self) -> Vec<Event> {
        self.seen.borrow().clone()
    }

    /// Events of one container so far.
    pub fn of(&self, container: &str) -> Vec<Event> {
        self.seen
            .borrow()
            .iter()
            .filter(|event| event.container == container)
            .cloned()
            .collect()
    }

    /// The kinds of one container's events so far, in order.
    pub fn kinds(&self, container: &str) -> Vec<String> {
        self.of(container).iter().map(|event| event.kind().to_owned()).collect()
    }

    /// Waits for an event of a container.
    pub async fn wait_for(&self, container: &str, kind: &str, matches: impl Fn(&Event) -> bool) -> Result<Event> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self
                .of(container)
                .into_iter()
                .find(|event| event.kind() == kind && matches(event))
            {
                return Ok(event);
            }
            if begun.elapsed() > crate::node::patience(10) {
                bail!("no event `{kind}` of {container}; there are: {:?}", self.of(container));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn flat(envelope: &Envelope) -> Event {
    let topic = envelope.topic.clone();
    let bytes = envelope
        .event
        .as_ref()
        .map(|any| any.value.as_slice())
        .unwrap_or_default();
    let event = match topic.as_str() {
        "/tasks/create" => TaskCreate::decode(bytes).map(|event| Event {
            container: event.container_id,
            pid: event.pid,
            bundle: event.bundle,
            ..Event::default()
        }),
        "/tasks/start" => TaskStart::decode(bytes).map(|event| Event {
            container: event.container_id,
            pid: event.pid,
            ..Event::default()
        }),
        "/tasks/exit" => TaskExit::decode(bytes).map(|event| Event {
            container: event.container_id,
            process: event.id,
            pid: event.pid,
            status: event.exit_status,
            ..Event::default()
        }),
        "/tasks/delete" => TaskDelete::decode(bytes).map(|event| Event {
            container: event.container_id,
            process: event.id,
            pid: event.pid,
            status: event.exit_status,
            ..Event::default()
        }),
        "/tasks/exec-added" => TaskExecAdded::decode(bytes).map(|event| Event {
            container: event.container_id,
            process: event.exec_id,
            ..Event::default()
        }),
        "/tasks/exec-started" => TaskExecStarted::decode(bytes).map(|event| Event {
            container: event.container_id,
            process: event.exec_id,
            pid: event.pid,
            ..Event::default()
        }),
        "/tasks/oom" => TaskOom::decode(bytes).map(|event| Event {
            container: event.container_id,
            ..Event::default()
        }),
        "/tasks/paused" => TaskPaused::decode(bytes).map(|event| Event {
            container: event.container_id,
            ..Event::default()
        }),
        "/tasks/resumed" => TaskResumed::decode(bytes).map(|event| Event {
            container: event.container_id,
            ..Event::default()
        }),
        _ => Ok(Event::default()),
    };
    Event {
        topic,
        ..event.unwrap_or_default()
    }
}
