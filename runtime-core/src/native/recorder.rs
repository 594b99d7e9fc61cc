//! Records which calls a container makes: lets each of them pass, and writes a profile that allows just those.
//!
//! A thread for each process that was started with a filter of its own, init and every exec; it ends with the last
//! process under that filter. What a container may do is not wider for it: its own filters hold as well, and the kernel
//! takes the strictest answer. Should the shim be killed, calls that nobody answers for come to ENOSYS, and nothing is
//! written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::Error;
use crate::security::seccomp::record::{self, Call};
use crate::sys::seccomp;

/// How long the last threads may take once all processes have ended.
const END_LIMIT: Duration = Duration::from_secs(5);
/// A thread keeps a set of a few hundred numbers.
const STACK: usize = 64 * 1024;

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    calls: BTreeSet<Call>,
    threads: usize,
}

/// The recording of one container.
#[derive(Debug)]
pub(super) struct Recorder {
    directory: OwnedFd,
    path: PathBuf,
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Recorder {
    /// One that will write to `<directory>/<name>.json`.
    ///
    /// # Errors
    /// A directory that is not there, or that others than root can write to.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let failed = |source| Error::Recording {
            path: directory.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
        if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
            let words = "it has to be a directory of root's that nobody else can write to";
            return Err(failed(io::Error::other(words)));
        }
        Ok(Self {
            directory: fd,
            path: directory.join(format!("{name}.json")),
            shared: Arc::default(),
        })
    }

    /// Answers for the calls of one more process, until there is nobody left under its filter.
    pub(super) fn listen(&self, listener: OwnedFd) -> io::Result<()> {
        lock(&self.shared.0).threads += 1;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("record".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let mut calls = BTreeSet::new();
            // An error is the end of what can be seen; who still waits is let go by the listener's end.
            while let Ok(Some(call)) = seccomp::let_pass(&listener) {
                calls.insert(call);
            }
            drop(listener);
            let mut seen = lock(&shared.0);
            seen.calls.append(&mut calls);
            seen.threads -= 1;
            shared.1.notify_all();
        });
        if started.is_err() {
            lock(&self.shared.0).threads -= 1;
        }
        started.map(drop)
    }

    /// After the container's processes have ended: writes the profile. Only if anything was seen.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let (seen, ended) = (lock(&self.shared.0), &self.shared.1);
        let waited = ended.wait_timeout_while(seen, END_LIMIT, |seen| seen.threads > 0);
        let (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if seen.calls.is_empty() {
            return Ok(());
        }
        let text = format!("{:#}\n", record::profile(&seen.calls));
        self.write(text.as_bytes()).map_err(|source| Error::Recording {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&self.directory, &temporary, flags, mode)?);
        file.write_all(text)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.directory, &temporary, &self.directory, name)?;
        Ok(())
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
