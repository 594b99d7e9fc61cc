//! FIFOs, whose other ends clients of containerd hold.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::Error;
use super::watch::watch;

/// A FIFO that was checked to be one, not opened for anything yet.
#[derive(Debug)]
struct Fifo {
    node: OwnedFd,
    path: PathBuf,
}

impl Fifo {
    /// Finds the FIFO at `path`. Neither this nor what follows ever waits for the other end, and a symlink is not
    /// followed: whoever made the FIFO made its name.
    fn find(path: &Path) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Fifo {
            path: path.to_owned(),
            source: errno.into(),
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&node).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Ok(Self {
                node,
                path: path.to_owned(),
            }),
            other => Err(Error::NotAFifo {
                path: path.to_owned(),
                kind: kind(other),
            }),
        }
    }

    /// Opens it, by the node that was checked. Each opening has its own O_NONBLOCK.
    fn open(&self, access: OFlags) -> Result<OwnedFd, Errno> {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open(self.proc_path(), flags, Mode::empty())
    }

    fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.node.as_raw_fd())
    }

    fn failed(&self, source: impl Into<io::Error>) -> Error {
        Error::Fifo {
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

/// A FIFO for a process's input, found and not open yet: see [`Input::open`].
#[derive(Debug)]
pub(super) struct Input(Fifo);

impl Input {
    pub fn find(path: &Path) -> Result<Self, Error> {
        Fifo::find(path).map(Self)
    }

    /// Opens it: our reader, and our own writer, without which a client that has not come yet, or a containerd that
    /// restarts, is end of file.
    ///
    /// From here on a client can write. It should not before the process starts: `ctr run` calls CloseIO at the end of
    /// its own input, but forgets to if that comes before Create has returned.
    pub fn open(self) -> Result<(AsyncFd<OwnedFd>, OwnedFd), Error> {
        let Self(fifo) = self;
        let reader = fifo.open(OFlags::RDONLY).map_err(|errno| fifo.failed(errno))?;
        // There is a reader now, so that this cannot be ENXIO.
        let keeper = fifo.open(OFlags::WRONLY).map_err(|errno| fifo.failed(errno))?;
        let reader = watch(reader, Interest::READABLE).map_err(|error| fifo.failed(error))?;
        Ok((reader, keeper))
    }
}

/// A FIFO for a process's output.
#[derive(Debug)]
pub(super) struct Output {
    fifo: Fifo,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No client yet. One is let in at once by our writer. The event loop does not see it: it would note for ever that
    /// the pipe has no reader.
    Alone(OwnedFd),
    /// Our own reader beside the writer: without it, a containerd that restarts breaks the pipe.
    Held { writer: AsyncFd<OwnedFd>, _keeper: OwnedFd },
}

impl Output {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fifo = Fifo::find(path)?;
        let state = match fifo.open(OFlags::WRONLY) {
            Ok(writer) => hold(&fifo, writer).map_err(|error| fifo.failed(error))?,
            Err(Errno::NXIO) => {
                // A writer can only be made while there is a reader.
                let _reader = fifo.open(OFlags::RDONLY).map_err(|errno| fifo.failed(errno))?;
                State::Alone(fifo.open(OFlags::WRONLY).map_err(|errno| fifo.failed(errno))?)
            }
            Err(errno) => return Err(fifo.failed(errno)),
        };
        Ok(Self { fifo, state })
    }

    /// Waits until a client has the FIFO open, then holds both its ends, so that the client may go and come again.
    ///
    /// A process may write and end, and we close the FIFO, before a client's thread gets to open it: what is in a FIFO
    /// is lost with its last opener, and the client would wait for a writer for ever. The runc shim waits here too, in
    /// Create.
    pub async fn ready(&mut self) -> io::Result<&AsyncFd<OwnedFd>> {
        while let State::Alone(writer) = &self.state {
            self.reader_comes(writer).await?;
            match self.fifo.open(OFlags::WRONLY) {
                Ok(writer) => self.state = hold(&self.fifo, writer)?,
                // It has gone again.
                Err(Errno::NXIO) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        match &self.state {
            State::Held { writer, .. } => Ok(writer),
            State::Alone(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn reader_comes(&self, writer: &OwnedFd) -> io::Result<()> {
        if has_reader(writer) {
            return Ok(());
        }
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&inotify, self.fifo.proc_path(), WatchFlags::OPEN)?;
        let opened = watch(inotify, Interest::READABLE)?;
        // Looked at again after the watch was set: nobody slips in between.
        while !has_reader(writer) {
            let mut guard = opened.readable().await?;
            let mut events = [MaybeUninit::<u8>::uninit(); 512];
            match rustix::io::read(opened.get_ref(), &mut events) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(errno) => return Err(errno.into()),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

fn hold(fifo: &Fifo, writer: OwnedFd) -> io::Result<State> {
    let keeper = fifo.open(OFlags::RDONLY)?;
    Ok(State::Held {
        writer: watch(writer, Interest::WRITABLE)?,
        _keeper: keeper,
    })
}

/// Whether anybody reads from the pipe (poll(2): POLLERR for a writer without a reader).
fn has_reader(writer: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(writer, PollFlags::empty())];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => !fds[0].revents().contains(PollFlags::ERR),
        Err(_) => false,
    }
}

/// What a file is, for messages.
pub(super) fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of an unknown kind",
    }
}

/// Whether `fd` could be read from (`PollFlags::IN`) or written to (`PollFlags::OUT`) now, or would fail or end.
pub(super) fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
