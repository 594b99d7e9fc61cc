use std::path::Path;

use containerd_shim_protos::api::{Empty, ForwardRequest};
use containerd_shim_protos::events::task::{TaskExit, TaskStart};
use containerd_shim_protos::shim_async::{Events, create_events};
use containerd_shim_protos::topics::{TASK_EXIT_EVENT_TOPIC, TASK_START_EVENT_TOPIC};
use tokio::sync::mpsc;
use ttrpc::r#async::TtrpcContext;
use ttrpc::asynchronous::Server;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A containerd that takes events.
struct Containerd {
    received: mpsc::UnboundedSender<Envelope>,
    /// Answers that it gives before it takes anything.
    answers: Mutex<VecDeque<ttrpc::Code>>,
}

#[async_trait::async_trait]
impl Events for Containerd {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        if let Some(code) = self.answers.lock().unwrap().pop_front() {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "not now")));
        }
        self.received.send(request.envelope.unwrap()).unwrap();
        Ok(Empty::default())
    }
}

async fn serve(socket: &Path, received: &mpsc::UnboundedSender<Envelope>, answers: &[ttrpc::Code]) -> Server {
    let containerd = Containerd {
        received: received.clone(),
        answers: Mutex::new(answers.iter().copied().collect()),
    };
    let mut server = Server::new()
        .bind(&format!("unix://{}", socket.display()))
        .unwrap()
        .register_service(create_events(Arc::new(containerd)));
    server.start().await.unwrap();
    server
}

fn start(pid: u32) -> TaskStart {
    TaskStart {
        container_id: "c".into(),
        pid,
        ..TaskStart::default()
    }
}

fn pid(event: &Envelope) -> u32 {
    TaskStart::parse_from_bytes(&event.event.value).unwrap().pid
}

#[tokio::test]
async fn an_event_arrives_as_containerd_expects_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _server = serve(&socket, &sender, &[]).await;
    let publisher = Publisher::new(socket.display().to_string(), "k8s.io".into());
    publisher.publish(
        TASK_EXIT_EVENT_TOPIC,
        TaskExit {
            exit_status: 7,
            ..TaskExit::default()
        },
    );
    let event = received.recv().await.unwrap();
    assert_eq!(event.topic, "/tasks/exit");
    assert_eq!(event.namespace, "k8s.io");
    assert_eq!(event.event.type_url, "containerd.events.TaskExit");
    assert!(event.timestamp.seconds > 1_700_000_000);
    assert_eq!(TaskExit::parse_from_bytes(&event.event.value).unwrap().exit_status, 7);
}

#[tokio::test]
async fn events_keep_their_order_over_a_restart_and_refusals_of_containerd() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (sender, mut received) = mpsc::unbounded_channel();
    let publisher = Publisher::new(format!("unix://{}", socket.display()), "n".into());
    for pid in 0..50 {
        publisher.publish(TASK_START_EVENT_TOPIC, start(pid));
    }
    let mut server = serve(&socket, &sender, &[ttrpc::Code::UNAVAILABLE, ttrpc::Code::NOT_FOUND]).await;
    publisher.drain(SOON).await;
    server.shutdown().await.unwrap();
    std::fs::remove_file(&socket).unwrap();
    for pid in 50..100 {
        publisher.publish(TASK_START_EVENT_TOPIC, start(pid));
        tokio::task::yield_now().await;
    }
    let _server = serve(&socket, &sender, &[]).await;
    publisher.drain(SOON).await;
    for expected in 0..100 {
        assert_eq!(pid(&received.try_recv().unwrap()), expected);
    }
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn an_event_that_containerd_calls_invalid_does_not_block_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _server = serve(&socket, &sender, &[ttrpc::Code::INVALID_ARGUMENT]).await;
    let publisher = Publisher::new(socket.display().to_string(), "n".into());
    publisher.publish(TASK_START_EVENT_TOPIC, start(1));
    publisher.publish(TASK_START_EVENT_TOPIC, start(2));
    publisher.drain(SOON).await;
    assert_eq!(pid(&received.try_recv().unwrap()), 2);
}

#[tokio::test]
async fn draining_without_containerd_ends_at_its_limit() {
    let publisher = Publisher::new("/nonexistent/socket".into(), "n".into());
    publisher.drain(SOON).await;
    publisher.publish(TASK_START_EVENT_TOPIC, start(1));
    let before = std::time::Instant::now();
    publisher.drain(Duration::from_millis(50)).await;
    assert!((Duration::from_millis(50)..SOON).contains(&before.elapsed()));
}

#[tokio::test]
async fn without_an_address_events_vanish() {
    let publisher = Publisher::new(String::new(), "n".into());
    publisher.publish(TASK_START_EVENT_TOPIC, start(1));
    publisher.drain(SOON).await;
}

#[tokio::test]
async fn an_outage_drops_the_oldest_events_only() {
    let queue = Queue::default();
    let event = |pid| envelope("/tasks/start", "n", &start(pid), SystemTime::UNIX_EPOCH).unwrap();
    queue.push(event(u32::MAX));
    let in_hand = queue.next().await;
    let count = CAPACITY as u32 + 3;
    for pid in 0..count {
        queue.push(event(pid));
    }
    queue.done();
    assert_eq!(pid(&in_hand), u32::MAX);
    for expected in 3..count {
        assert_eq!(pid(&queue.next().await), expected);
        queue.done();
    }
    assert_eq!(queue.pending(), 0);
}
