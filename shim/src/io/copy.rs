//! Moving bytes between a process's pipes or console and where they go, without a thread or a buffer while nothing
//! moves.
//!
//! tokio never forgets that it saw the other side closed. Here a FIFO or terminal may be opened once more after that:
//! to wait for readiness then would be to spin. So a closed side that is not ready is the end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::fifo;

/// Size of the buffer that exists while bytes are copied: a console's whole line buffer twice.
const CHUNK: usize = 8 * 1024;
/// Most that one splice moves: what a pipe holds unless somebody enlarged it (pipe(7)).
const PIPE: usize = 64 * 1024;
/// Splices in a row before others get their turn: about 100 µs.
const TURN: usize = 8;
/// Chunks that one blocking call writes to a file at most.
const FILE_TURN: usize = 128;
/// What can be left in a pseudo terminal when its process has ended: the kernel buffers some 64 KiB (tty_buffer.c) and
/// a line discipline's 4 KiB. Who writes after that has outlived the process.
const CONSOLE_REST: usize = 256 * 1024;
/// How long a console that others keep open stays quiet before it counts as copied to its end.
const CONSOLE_QUIET: Duration = Duration::from_millis(100);

/// Where output goes that the shim copies.
#[derive(Debug)]
pub(super) enum Sink {
    Fifo(fifo::Output),
    /// A pipe to a logging program.
    Pipe(AsyncFd<OwnedFd>),
    File(Arc<File>),
}

/// Moves everything from one pipe to another until the first has no writer left; no byte passes through our memory.
pub(super) async fn splice(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    let mut turn = 0;
    loop {
        match rustix::pipe::splice(from.get_ref(), None, to.get_ref(), None, PIPE, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                turn += 1;
                if turn % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::INTR) => {}
            // EAGAIN does not say which side has to change. A readiness may only be given up for a side that was seen
            // not to be ready: for the other no edge would come, and we would sleep for ever.
            Err(Errno::AGAIN) => {
                let mut readable = from.readable().await?;
                if !fifo::is_ready(from.get_ref().as_fd(), PollFlags::IN)? {
                    if readable.ready().is_read_closed() {
                        return Ok(());
                    }
                    readable.clear_ready();
                    from.readable().await?.retain_ready();
                    continue;
                }
                let mut writable = to.writable().await?;
                if !fifo::is_ready(to.get_ref().as_fd(), PollFlags::OUT)? {
                    if writable.ready().is_write_closed() {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    writable.clear_ready();
                    to.writable().await?.retain_ready();
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// From a process's pipe to where its output goes, to the end.
pub(super) async fn output(from: AsyncFd<OwnedFd>, to: Sink) -> io::Result<()> {
    match to {
        Sink::Fifo(mut fifo) => splice(&from, fifo.ready().await?).await,
        Sink::Pipe(pipe) => splice(&from, &pipe).await,
        Sink::File(file) => into_file(Arc::new(from), file).await,
    }
}

/// From a client's FIFO to a console, to the end.
pub(super) async fn input(from: AsyncFd<OwnedFd>, console: Arc<AsyncFd<OwnedFd>>) -> io::Result<()> {
    while let Some(chunk) = read(&from).await? {
        write_all(&console, &chunk).await?;
    }
    Ok(())
}

/// From a console to where its output goes: until nobody has the terminal open any more, or until `ended` says that the
/// process has ended and nothing of it is left. Whoever else still has the terminal open must not hold this up.
pub(super) async fn console(master: Arc<AsyncFd<OwnedFd>>, mut to: Sink, ended: Arc<Notify>) -> io::Result<()> {
    loop {
        let chunk = tokio::select! {
            biased;
            () = ended.notified() => break,
            chunk = read(&master) => chunk?,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        deliver(&mut to, chunk).await?;
    }
    // What was written last may still be on its way through the terminal. With nobody else at the terminal the end
    // comes by itself (EIO); where somebody is, a moment without output is the end.
    let mut rest = CONSOLE_REST;
    while rest > 0 {
        match tokio::time::timeout(CONSOLE_QUIET, read(&master)).await {
            Ok(Ok(Some(chunk))) => {
                rest = rest.saturating_sub(chunk.len());
                deliver(&mut to, chunk).await?;
            }
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(error)) => return Err(error),
        }
    }
    Ok(())
}

/// The next bytes, None at the end. Its buffer is made when there is something to read.
async fn read(from: &AsyncFd<OwnedFd>) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut guard = from.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK);
        match rustix::io::read(from.get_ref(), spare_capacity(&mut chunk)) {
            // EIO is how a pseudo terminal's master learns that its slave is closed (tty(4), pty(7)).
            Ok(0) | Err(Errno::IO) => return Ok(None),
            Ok(_) => return Ok(Some(chunk)),
            Err(Errno::AGAIN) if guard.ready().is_read_closed() => return Ok(None),
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = to.writable().await?;
        match rustix::io::write(to.get_ref(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) if guard.ready().is_write_closed() => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

async fn deliver(to: &mut Sink, chunk: Vec<u8>) -> io::Result<()> {
    match to {
        Sink::Fifo(fifo) => write_all(fifo.ready().await?, &chunk).await,
        Sink::Pipe(pipe) => write_all(pipe, &chunk).await,
        Sink::File(file) => {
            let file = Arc::clone(file);
            blocking(move || report(append(&file, &chunk))).await
        }
    }
}

/// What came out of one turn of [`into_file`].
enum Turn {
    End,
    Empty,
    More,
}

/// From a pipe to a file. A disk may take its time: the shim's one thread does not wait for it.
async fn into_file(from: Arc<AsyncFd<OwnedFd>>, file: Arc<File>) -> io::Result<()> {
    loop {
        let mut guard = from.readable().await?;
        let (from, file) = (Arc::clone(&from), Arc::clone(&file));
        match blocking(move || file_turn(from.get_ref(), &file)).await?? {
            Turn::End => return Ok(()),
            Turn::Empty => guard.clear_ready(),
            Turn::More => {}
        }
    }
}

fn file_turn(from: &OwnedFd, file: &File) -> io::Result<Turn> {
    let mut buffer = Vec::with_capacity(CHUNK);
    for _ in 0..FILE_TURN {
        buffer.clear();
        match rustix::io::read(from, spare_capacity(&mut buffer)) {
            Ok(0) => return Ok(Turn::End),
            // A full disk costs lines of the log, not the container: the pipe stays open and is read on.
            Ok(_) => report(append(file, &buffer)),
            Err(Errno::AGAIN) => return Ok(Turn::Empty),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Turn::More)
}

fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

fn report(written: io::Result<()>) {
    if let Err(error) = written {
        log::warn!("append to a container's log file: {error}; output is lost");
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
