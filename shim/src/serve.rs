//! The `serve` action: the shim itself, one for each group of containers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixListener;
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::args::Args;
use crate::events::Publisher;
use crate::listener::Connections;
use crate::shim::{Activity, Shim};
use crate::signals::Signals;
use crate::{logger, reaper, service};

/// Nobody is connected and there is no container: containerd has died between `start` and Create, or after the last
/// Delete. It would remove this shim when it is back; but it may never be.
const UNUSED: Duration = Duration::from_secs(30);
/// The replies that are on their way.
const FLUSH: Duration = Duration::from_secs(2);
/// The events that are on their way: containerd's own shims wait as long.
const DRAIN: Duration = Duration::from_secs(5);
/// What the event loop takes from the kernel at a time. tokio's 1,024 are a buffer of three pages.
const EVENTS: usize = 64;

/// Why the shim cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// stdin is not the listener.
    #[error("take the listener from stdin")]
    Listener(#[source] io::Error),
    /// /dev/null is no null device.
    #[error("open /dev/null")]
    Null(#[source] io::Error),
    /// No event loop.
    #[error("make the event loop")]
    Runtime(#[source] io::Error),
    /// Orphans would go astray.
    #[error("become a subreaper")]
    Subreaper(#[source] io::Error),
    /// Signals cannot be received.
    #[error("watch for signals")]
    Signals(#[source] io::Error),
    /// ttrpc.
    #[error("serve")]
    Serve(#[source] ttrpc::Error),
}

/// Serves until the last container is deleted, or nobody needs it.
pub fn run(args: Args) -> Result<(), Error> {
    logger::install(&args.id, &args.namespace, args.debug);
    // Fails only where the caller made us a leader already: all the same then.
    let _ = rustix::process::setsid();
    raise_oom_score();
    reaper::become_subreaper().map_err(Error::Subreaper)?;
    let listener = take_listener()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS)
        .build()
        .map_err(Error::Runtime)?
        .block_on(serve(args, listener))
}

/// The listener is what `start` made our stdin; in its place comes what every program expects there.
fn take_listener() -> Result<OwnedFd, Error> {
    let listener = rustix::stdio::stdin().try_clone_to_owned().map_err(Error::Listener)?;
    let null = std::fs::File::open("/dev/null").map_err(Error::Null)?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| Error::Null(error.into()))?;
    Ok(listener)
}

/// One more than containerd's, which we have inherited: when memory is short, shims go before containerd.
fn raise_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    const HIGHEST: i32 = 1000;
    let score = std::fs::read_to_string(FILE)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score.filter(|score| *score < HIGHEST)
        && let Err(error) = std::fs::write(FILE, (score + 1).to_string())
    {
        log::warn!("write {} to {FILE}: {error}", score + 1);
    }
}

async fn serve(args: Args, listener: OwnedFd) -> Result<(), Error> {
    let publisher = Publisher::new(
        std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
        args.namespace.clone(),
    );
    let shim = Arc::new(Shim::new(
        args.namespace,
        args.group,
        PathBuf::from(args.socket),
        publisher,
    ));

    tokio::spawn(reaper::run(
        Arc::clone(&shim),
        reaper::child_ended().map_err(Error::Signals)?,
    ));
    let listener = std::os::unix::net::UnixListener::from(listener);
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(Error::Listener)?;
    let connections = Listener::new(Connections::new(listener, Arc::clone(&shim)));
    let mut server = service::register(Server::new().add_listener(connections), &shim);
    server.start().await.map_err(Error::Serve)?;

    let leave = Signals::watch(&[Signal::TERM, Signal::INT]).map_err(Error::Signals)?;
    tokio::select! {
        () = shim.ended() => {}
        () = unused(&shim) => {}
        // As containerd's own shims: they leave, their containers are cleaned up by `delete`.
        Ok(()) = leave.recv() => shim.end(),
    }
    // First the replies, that of Shutdown above all; then the events, of which TaskDelete is the last.
    let _ = tokio::time::timeout(FLUSH, server.shutdown()).await;
    shim.publisher.drain(DRAIN).await;
    std::process::exit(0);
}

/// Waits until nobody has needed the shim for a while, and ends it.
async fn unused(shim: &Shim) {
    let mut activity = shim.activity.subscribe();
    loop {
        // The sender is part of the shim that we hold.
        let _ = activity.wait_for(|activity| activity.is_idle()).await;
        let busy = activity.wait_for(|activity: &Activity| !activity.is_idle());
        if tokio::time::timeout(UNUSED, busy).await.is_err() && shim.end_if_idle() {
            return;
        }
    }
}
