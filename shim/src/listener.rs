//! Connections from containerd.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;

use crate::shim::Shim;

/// Accepts connections of root alone (and of the shim's own user).
///
/// The socket's mode says the same; but whoever got hold of the path by other means, through a container's mount of
/// /run for one, is told by the kernel's word (CVE-2020-15257).
pub struct Connections {
    listener: UnixListener,
    shim: Arc<Shim>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Connections {
    /// Those that `listener` gets.
    pub fn new(listener: UnixListener, shim: Arc<Shim>) -> Self {
        Self {
            listener,
            shim,
            pause: None,
        }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        /// Out of descriptors: accept(2) would say so again at once.
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            if let Some(pause) = self.pause.as_mut() {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let (stream, _) = match ready!(self.listener.poll_accept(context)) {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::error!("accept a connection: {error}");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                    continue;
                }
            };
            let own = rustix::process::geteuid().as_raw();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == own => {
                    return Poll::Ready(Some(Ok(Connection::new(stream, Arc::clone(&self.shim)))));
                }
                Ok(peer) => log::warn!("refused a connection of user {}", peer.uid()),
                Err(error) => log::warn!("refused a connection of nobody knows whom: {error}"),
            }
        }
    }
}

/// One connection; counted while it is open.
pub struct Connection {
    stream: UnixStream,
    shim: Arc<Shim>,
}

impl Connection {
    fn new(stream: UnixStream, shim: Arc<Shim>) -> Self {
        shim.activity.send_modify(|activity| activity.connections += 1);
        Self { stream, shim }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shim.activity.send_modify(|activity| activity.connections -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
