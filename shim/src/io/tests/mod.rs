mod console;
mod fifo;
mod file;
mod logger;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;

/// Longer than anything here takes: a test that gets there has failed.
const LONG: Duration = Duration::from_secs(60);

/// A directory with FIFOs, as a client of containerd makes it.
struct Client {
    dir: TempDir,
}

impl Client {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o700.into()).unwrap();
        path
    }
}

const NOTHING: Spec<'static> = Spec {
    stdin: "",
    stdout: "",
    stderr: "",
    terminal: false,
    id: "c1",
    namespace: "n1",
    io_uid: 0,
    io_gid: 0,
};

/// Streams of a process whose output alone goes somewhere.
async fn stdout_to(out: &str) -> (Io, Stdio) {
    let spec = Spec { stdout: out, ..NOTHING };
    Io::open(spec).await.unwrap()
}

/// Does what blocks on a thread of its own.
fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Opens, reads to the end, closes.
fn read_all(path: &str) -> JoinHandle<Vec<u8>> {
    let path = PathBuf::from(path);
    thread(move || {
        let mut content = Vec::new();
        File::open(path).unwrap().read_to_end(&mut content).unwrap();
        content
    })
}

fn open_writer(path: &str) -> File {
    File::options().write(true).open(path).unwrap()
}

async fn write(fd: OwnedFd, bytes: &[u8]) -> OwnedFd {
    let bytes = bytes.to_vec();
    thread(move || {
        let mut file = File::from(fd);
        file.write_all(&bytes).unwrap();
        file.into()
    })
    .await
    .unwrap()
}

async fn error(spec: Spec<'_>) -> String {
    let error = Io::open(spec).await.unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Bytes that show what was lost, doubled or swapped.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
