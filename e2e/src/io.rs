//! The client's ends of a process's streams: FIFOs, read in the background.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a text may take to arrive, or a stream to end.
fn patience() -> Duration {
    crate::node::patience(10)
}

/// Makes a FIFO, unless it is there from an earlier try.
pub fn make_fifo(path: &Path) -> Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .or_else(|error| if error == Errno::EXIST { Ok(()) } else { Err(error) })
        .with_context(|| format!("make the FIFO {}", path.display()))
}

/// What has been read from a FIFO so far.
#[derive(Clone, Default)]
pub struct Capture {
    bytes: Rc<RefCell<Vec<u8>>>,
    ended: Rc<Cell<bool>>,
    changed: Rc<Notify>,
}

impl Capture {
    /// Makes a FIFO and reads it in the background, to its end.
    pub fn of_new_fifo(path: &Path) -> Result<Self> {
        make_fifo(path)?;
        Self::of_fifo(path)
    }

    /// Reads an existing FIFO in the background.
    pub fn of_fifo(path: &Path) -> Result<Self> {
        let mut receiver = pipe::OpenOptions::new()
            .open_receiver(path)
            .with_context(|| format!("open the FIFO {}", path.display()))?;
        let capture = Self::default();
        let (bytes, ended, changed) = (capture.bytes.clone(), capture.ended.clone(), capture.changed.clone());
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = receiver.read(&mut buffer).await {
                bytes.borrow_mut().extend_from_slice(&buffer[..count]);
                changed.notify_waiters();
            }
            ended.set(true);
            changed.notify_waiters();
        });
        Ok(capture)
    }

    /// What is there now.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.borrow()).into_owned()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits until a text has come.
    pub async fn wait_for(&self, wanted: &str) -> Result<String> {
        let come = self.until(|| self.text().contains(wanted)).await;
        if !come {
            bail!("`{wanted}` did not come; there is: {:?}", self.text());
        }
        Ok(self.text())
    }

    /// Waits for the end of the stream.
    pub async fn to_end(&self) -> Result<String> {
        if !self.until(|| self.has_ended()).await {
            bail!("the stream does not end; there is: {:?}", self.text());
        }
        Ok(self.text())
    }

    async fn until(&self, condition: impl Fn() -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if condition() || self.has_ended() {
                    return;
                }
                changed.await;
            }
        };
        timeout(patience(), wait).await.ok();
        condition()
    }
}
