//! Events to containerd, strictly in the order in which they happened.
//!
//! containerd's own publisher and containerd-shim's requeue what failed on separate timers, so that an exit can
//! overtake its start; and they give up after a few attempts. Here one task sends one event at a time and keeps it in
//! hand until containerd has answered. While containerd is away events wait in memory, [`CAPACITY`] of them at most.

mod forward;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::shim::event::Envelope;
use protobuf::{Message, MessageField, well_known_types};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Events kept while containerd is away; beyond it the oldest is dropped. Ten thousand take about 3 MB.
const CAPACITY: usize = 10_000;

/// Every event of a shim belongs to this protobuf package: [`Message::NAME`] has the rest of the name.
const PACKAGE: &str = "containerd.events";

/// Sends events to containerd. Clones share one queue; the task behind it ends with the last clone.
#[derive(Clone)]
pub struct Publisher {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    queue: Arc<Queue>,
    namespace: String,
    task: JoinHandle<()>,
}

/// What is shared with the task that sends.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// An event was added.
    added: Notify,
    /// Nothing waits and nothing is on its way.
    idle: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Envelope>,
    /// One event has left `waiting` and has not been acknowledged.
    sending: bool,
    /// Events dropped since the last line about it.
    dropped: u64,
}

impl Publisher {
    /// A publisher to the ttrpc socket at `ttrpc_address` (containerd's environment variable TTRPC_ADDRESS: a path, or
    /// `unix://` and a path), for containers of `namespace`. Where the address is empty nobody listens: events vanish.
    ///
    /// Has to be called inside the runtime. Connects when there is something to send.
    pub fn new(ttrpc_address: String, namespace: String) -> Self {
        if ttrpc_address.is_empty() {
            return Self { shared: None };
        }
        let queue = Arc::new(Queue::default());
        let task = tokio::spawn(forward::run(ttrpc_address, Arc::clone(&queue)));
        Self {
            shared: Some(Arc::new(Shared { queue, namespace, task })),
        }
    }

    /// Queues `event`, one of [`containerd_shim_protos::events`], under `topic`, one of
    /// [`containerd_shim_protos::topics`]. Never blocks, and its time is now.
    pub fn publish(&self, topic: &'static str, event: impl Message) {
        let Some(shared) = &self.shared else { return };
        let envelope = match envelope(topic, &shared.namespace, &event, SystemTime::now()) {
            Ok(envelope) => envelope,
            Err(error) => {
                log::warn!("encode event {topic}: {error}");
                return;
            }
        };
        shared.queue.push(envelope);
    }

    /// Waits until containerd has every event that was published, `limit` at most. For the moment before exit.
    pub async fn drain(&self, limit: Duration) {
        let Some(shared) = &self.shared else { return };
        let lost = tokio::time::timeout(limit, shared.queue.until_idle()).await.is_err();
        if lost {
            log::warn!("events not delivered within {limit:?}: {}", shared.queue.pending());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The event as containerd wants it: its type's full name is the type URL, with no host before it.
fn envelope(topic: &str, namespace: &str, event: &impl Message, at: SystemTime) -> protobuf::Result<Envelope> {
    Ok(Envelope {
        timestamp: MessageField::some(at.into()),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(any(event)?),
        ..Envelope::default()
    })
}

fn any<M: Message>(event: &M) -> protobuf::Result<well_known_types::any::Any> {
    Ok(well_known_types::any::Any {
        type_url: format!("{PACKAGE}.{}", M::NAME),
        value: event.write_to_bytes()?,
        ..well_known_types::any::Any::default()
    })
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves a valid queue.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Envelope) {
        let mut state = self.lock();
        if state.waiting.len() == CAPACITY {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        state.waiting.push_back(event);
        drop(state);
        self.added.notify_one();
    }

    /// The next event, in hand until [`Self::done`]; waits for one.
    async fn next(&self) -> Envelope {
        loop {
            {
                let mut state = self.lock();
                if let Some(event) = state.waiting.pop_front() {
                    state.sending = true;
                    let dropped = std::mem::take(&mut state.dropped);
                    drop(state);
                    if dropped > 0 {
                        log::warn!("containerd was away for too long: the {dropped} oldest events were dropped");
                    }
                    return event;
                }
                // What an outage needed is given back.
                state.waiting.shrink_to(16);
            }
            self.added.notified().await;
        }
    }

    /// The event in hand was taken, or can never be.
    fn done(&self) {
        let mut state = self.lock();
        state.sending = false;
        if state.waiting.is_empty() {
            drop(state);
            self.idle.notify_waiters();
        }
    }

    fn pending(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + usize::from(state.sending)
    }

    async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that no notification falls between the two.
            idle.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests;
