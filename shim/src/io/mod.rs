//! The streams of a process: what containerd asks for, and the shim's side of it.
//!
//! **A process gets pipes, never the client's FIFO or the log file.** The shim moves what is in them with splice(2): no
//! thread, no buffer and no wake-up while nothing is written; a line takes 10 µs to its client, the three streams of a
//! process 120 µs from first to last (an unoptimised build's figures). To hand over a client's FIFO itself would save
//! that, but
//! - a background child of an exec that inherited it, or whoever its fd was passed to, would hold the client's end of
//!   file back as long as it lives, past delete; with a pipe, delete ends it as under the runc shim (containerd 1.6's
//!   client reads to the end after it has deleted);
//! - SELinux and AppArmor judge a process's use of a file in /run/containerd, while a pipe is inherited freely;
//! - init gives its streams to the container's user (fchown), which would be the host's inode, and /proc/self/fd/1
//!   would
//!   show the host's path.

mod copy;
mod error;
mod fifo;
mod file;
mod logger;
mod uri;
pub(crate) mod watch;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use runtime_core::backend::Stdio;
use rustix::fs::{Gid, Uid};
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use error::Error;

use copy::Sink;
use logger::Logger;
use uri::{Binary, Target};

/// What containerd wants a process's streams to be (CreateTaskRequest, ExecProcessRequest).
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// A FIFO's path or URI, or empty for /dev/null.
    pub stdin: &'a str,
    /// A FIFO's path, `fifo://`, `file://`, `binary://`, `binary-v2://`, or empty for /dev/null.
    pub stdout: &'a str,
    /// The same; not used with a terminal.
    pub stderr: &'a str,
    /// The process has a console instead of three streams.
    pub terminal: bool,
    /// The container's id: told to logging programs.
    pub id: &'a str,
    /// The container's namespace in containerd: told to logging programs.
    pub namespace: &'a str,
    /// Who owns the pipes (runc options' io_uid).
    pub io_uid: u32,
    /// Their group (io_gid).
    pub io_gid: u32,
}

/// The shim's side of one process's streams. Dropping it closes everything at once.
#[derive(Debug, Default)]
pub struct Io {
    /// The copies of stdin; does not hold up [`Io::drain`].
    input: Vec<Copy>,
    /// The copies of stdout and stderr, or of the console's output.
    output: Vec<Copy>,
    /// Where stdin comes from, until the process starts.
    stdin: Option<fifo::Input>,
    /// Where stdin goes, until the process starts; a console is in `console`.
    stdin_pipe: Option<AsyncFd<OwnedFd>>,
    /// Our writer of the stdin FIFO.
    stdin_keeper: Option<OwnedFd>,
    /// CloseIO was called.
    stdin_closed: bool,
    /// Where a console's output goes, until the console is attached.
    console_output: Option<Sink>,
    console: Option<Console>,
    /// The program that gets the output.
    logger: Option<Logger>,
}

#[derive(Debug)]
struct Console {
    master: Arc<AsyncFd<OwnedFd>>,
    ended: Arc<Notify>,
}

/// A task that copies; ends when this is dropped.
#[derive(Debug)]
struct Copy(JoinHandle<()>);

impl Copy {
    fn start(stream: &'static str, copy: impl Future<Output = std::io::Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = copy.await {
                log::warn!("copy {stream}: {error}");
            }
        }))
    }

    /// Ends the task, and with it the fds it holds.
    async fn end(mut self) {
        self.0.abort();
        // An error here says that it was aborted, which it was.
        (&mut self.0).await.ok();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Io {
    /// Opens what `spec` names; output is copied from now on, input from [`Io::process_starts`]. Never waits for a
    /// client. The second value is for the process: without a terminal, what its fds 0, 1 and 2 are to be; with one,
    /// nothing.
    ///
    /// # Errors
    /// Names the stream's URI or path, and why it does not serve.
    pub async fn open(spec: Spec<'_>) -> Result<(Self, Stdio), Error> {
        let mut io = Self::default();
        let mut stdio = Stdio::default();
        io.stdin = match Target::parse(spec.stdin)? {
            Target::Null => None,
            Target::Fifo(path) => Some(fifo::Input::find(&path)?),
            _ => return Err(unfit("stdin", spec.stdin, "input comes from a FIFO")),
        };
        if spec.terminal {
            io.console_output = match Target::parse(spec.stdout)? {
                Target::Binary(binary) => {
                    // A console has one output: the program finds the end of its other input at once.
                    let (logger, stdout, _) = start_logger(binary, &spec).await?;
                    io.logger = Some(logger);
                    Some(Sink::Pipe(watched("stdout", stdout, Interest::WRITABLE)?))
                }
                target => sink("stdout", spec.stdout, target)?,
            };
            return Ok((io, stdio));
        }
        match Target::parse(spec.stdout)? {
            Target::Binary(binary) => {
                if !spec.stderr.is_empty() && spec.stderr != spec.stdout {
                    return Err(unfit("stderr", spec.stderr, "stdout's logging program gets both"));
                }
                let (logger, stdout, stderr) = start_logger(binary, &spec).await?;
                io.logger = Some(logger);
                stdio.stdout = Some(stdout);
                stdio.stderr = Some(stderr);
            }
            stdout => {
                let stdout = sink("stdout", spec.stdout, stdout)?;
                let stderr = sink("stderr", spec.stderr, Target::parse(spec.stderr)?)?;
                stdio.stdout = io.copy_output("stdout", stdout, &spec)?;
                stdio.stderr = io.copy_output("stderr", stderr, &spec)?;
            }
        }
        if io.stdin.is_some() {
            let (theirs, ours) = pipe("stdin", &spec)?;
            io.stdin_pipe = Some(watched("stdin", ours, Interest::WRITABLE)?);
            stdio.stdin = Some(theirs);
        }
        Ok((io, stdio))
    }

    /// Starts copying what comes out of `master`, the process's console.
    ///
    /// # Errors
    /// The kernel's, if it refuses to watch the console.
    pub fn attach_console(&mut self, master: OwnedFd) -> Result<(), Error> {
        let master = Arc::new(watched("console", master, Interest::READABLE | Interest::WRITABLE)?);
        let ended = Arc::new(Notify::new());
        if let Some(to) = self.console_output.take() {
            let copy = copy::console(Arc::clone(&master), to, Arc::clone(&ended));
            self.output.push(Copy::start("console", copy));
        }
        self.console = Some(Console { master, ended });
        Ok(())
    }

    /// The process starts, and its console, if it is to have one, is attached: its input may come.
    ///
    /// # Errors
    /// Names the stdin FIFO, where it cannot be opened.
    pub fn process_starts(&mut self) -> Result<(), Error> {
        let Some(stdin) = self.stdin.take() else { return Ok(()) };
        let (from, keeper) = stdin.open()?;
        self.stdin_keeper = (!self.stdin_closed).then_some(keeper);
        if let Some(to) = self.stdin_pipe.take() {
            let copy = async move { copy::splice(&from, &to).await };
            self.input.push(Copy::start("stdin", copy));
        } else if let Some(console) = &self.console {
            let copy = copy::input(from, Arc::clone(&console.master));
            self.input.push(Copy::start("stdin", copy));
        }
        Ok(())
    }

    /// Sets the console's size; without a console there is nothing to do.
    ///
    /// # Errors
    /// The kernel's (TIOCSWINSZ).
    pub fn resize(&self, rows: u16, cols: u16) -> Result<(), Error> {
        let Some(console) = &self.console else { return Ok(()) };
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(console.master.get_ref(), size).map_err(|errno| Error::Pipe {
            operation: "set the size",
            stream: "console",
            source: errno.into(),
        })
    }

    /// Lets go of our own writer of the stdin FIFO (CloseIO): the process reads to its end once its client has closed
    /// too.
    pub fn close_stdin(&mut self) {
        self.stdin_closed = true;
        self.stdin_keeper = None;
    }

    /// The process has ended. What it left in its console is still copied, then the client sees the end, also where a
    /// child of it keeps the terminal open: CRI deletes an exec only after it has seen that.
    pub fn process_ended(&self) {
        if let Some(console) = &self.console {
            console.ended.notify_one();
        }
    }

    /// Waits until the output has been copied to its end, `limit` at most, then closes everything: clients see end of
    /// file, whoever still holds the process's ends. For delete.
    pub async fn drain(&mut self, limit: Duration) {
        self.process_ended();
        let deadline = Instant::now() + limit;
        for mut copy in self.output.drain(..) {
            if tokio::time::timeout_at(deadline, &mut copy.0).await.is_err() {
                copy.end().await;
            }
        }
        for copy in self.input.drain(..) {
            copy.end().await;
        }
        // Whatever is still open here is closed before the program is waited for: it reads to the end.
        let logger = std::mem::take(self).logger;
        if let Some(logger) = logger {
            logger.end().await;
        }
    }

    fn copy_output(
        &mut self,
        stream: &'static str,
        to: Option<Sink>,
        spec: &Spec<'_>,
    ) -> Result<Option<OwnedFd>, Error> {
        let Some(to) = to else { return Ok(None) };
        let (ours, theirs) = pipe(stream, spec)?;
        let from = watched(stream, ours, Interest::READABLE)?;
        self.output.push(Copy::start(stream, copy::output(from, to)));
        Ok(Some(theirs))
    }
}

/// A pipe for a process, of the owner that it is to have: reader and writer, both blocking.
fn pipe(stream: &'static str, spec: &Spec<'_>) -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |operation| {
        move |errno: rustix::io::Errno| Error::Pipe {
            operation,
            stream,
            source: errno.into(),
        }
    };
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    if (spec.io_uid, spec.io_gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(spec.io_uid), Gid::from_raw(spec.io_gid));
        rustix::fs::fchown(&reader, Some(uid), Some(gid)).map_err(failed("set the owner of the pipe"))?;
    }
    Ok((reader, writer))
}

fn watched(stream: &'static str, fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, Error> {
    watch::watch(fd, interest).map_err(|source| Error::Pipe {
        operation: "watch the pipe or console",
        stream,
        source,
    })
}

fn sink(stream: &'static str, uri: &str, target: Target) -> Result<Option<Sink>, Error> {
    Ok(match target {
        Target::Null => None,
        Target::Fifo(path) => Some(Sink::Fifo(fifo::Output::open(&path)?)),
        Target::File(path) => Some(Sink::File(Arc::new(file::open(&path)?))),
        Target::Binary(_) => {
            return Err(unfit(
                stream,
                uri,
                "a logging program is named by stdout, and gets both",
            ));
        }
    })
}

/// Starts a logging program: itself, and the ends for a process's stdout and stderr.
async fn start_logger(binary: Binary, spec: &Spec<'_>) -> Result<(Logger, OwnedFd, OwnedFd), Error> {
    let (out_reader, out) = pipe("stdout", spec)?;
    let (err_reader, err) = pipe("stderr", spec)?;
    let logger = Logger::start(binary, spec.id, spec.namespace, out_reader, err_reader).await?;
    Ok((logger, out, err))
}

fn unfit(stream: &'static str, uri: &str, reason: &'static str) -> Error {
    Error::Unfit {
        stream,
        uri: error::shown(uri),
        reason,
    }
}

#[cfg(test)]
mod tests;
