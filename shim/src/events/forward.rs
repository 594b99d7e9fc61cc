//! The task that hands events to containerd.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::MessageField;
use tokio::net::UnixStream;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context;

use super::Queue;

/// First pause after a failure; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// A restarting containerd is found again within a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take. A containerd that is stopped (SIGSTOP, a debugger) still has the event in its socket:
/// sent again too early, it would arrive twice.
const ANSWER: Duration = Duration::from_secs(60);

/// A containerd that is there, and answers so often that it cannot, keeps all later events waiting no longer: 20 s.
const MOST_ANSWERS: u32 = 25;

/// Why an event did not reach containerd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// Nobody listens at the address.
    #[error("connect to containerd's events at {address}")]
    Connect {
        /// The socket's path.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// The call failed.
    #[error("forward event {topic} to containerd")]
    Forward {
        /// The event's topic.
        topic: String,
        #[source]
        source: Box<ttrpc::Error>,
    },
}

/// Sends what is queued, for ever. Between events it waits without a timer; a lost connection costs nothing until there
/// is something to send.
pub(super) async fn run(address: String, queue: Arc<Queue>) {
    let path = address.strip_prefix("unix://").unwrap_or(&address);
    let mut connection = None;
    loop {
        let event = queue.next().await;
        let mut pause = FIRST_PAUSE;
        let mut reported = false;
        let mut answers = 0;
        while let Err(error) = deliver(path, &mut connection, &event).await {
            answers += u32::from(answered(&error));
            if refused(&error) || answers == MOST_ANSWERS {
                log::warn!("{error}: {}; the event is dropped", source(&error));
                break;
            }
            connection = None;
            if !reported {
                reported = true;
                log::warn!("{error}: {}; trying again", source(&error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        queue.done();
    }
}

async fn deliver(path: &str, connection: &mut Option<EventsClient>, event: &Envelope) -> Result<(), Error> {
    let client = match connection {
        Some(client) => client,
        None => connection.insert(connect(path).await?),
    };
    let request = ForwardRequest {
        envelope: MessageField::some(event.clone()),
        ..ForwardRequest::default()
    };
    match client.forward(context::with_duration(ANSWER), &request).await {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Forward {
            topic: event.topic.clone(),
            source: Box::new(source),
        }),
    }
}

/// Connects without blocking: a containerd whose backlog is full gives EAGAIN here, and would hold up the whole shim
/// with
/// [`Client::connect`].
async fn connect(path: &str) -> Result<EventsClient, Error> {
    let stream = UnixStream::connect(path).await.map_err(|source| Error::Connect {
        address: path.to_owned(),
        source,
    })?;
    Ok(EventsClient::new(Client::new(Socket::new(stream))))
}

fn answered(error: &Error) -> bool {
    matches!(error, Error::Forward { source, .. } if matches!(&**source, ttrpc::Error::RpcStatus(_)))
}

/// Whether containerd has read the event and will never take it: the next attempt would say the same. Everything else
/// is a containerd that goes or comes (CANCELLED, UNAVAILABLE, and UNIMPLEMENTED or NOT_FOUND before its service is
/// there).
fn refused(error: &Error) -> bool {
    let Error::Forward { source, .. } = error else {
        return false;
    };
    matches!(&**source, ttrpc::Error::RpcStatus(status) if status.code() == ttrpc::Code::INVALID_ARGUMENT)
}

fn source(error: &Error) -> String {
    std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default()
}
