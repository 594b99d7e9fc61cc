//! A terminal for a program that wants to sit at one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};

/// A program with a terminal, seen from the keyboard's side.
pub struct Terminal {
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
    pub child: Child,
}

impl Terminal {
    /// Starts a program with a new terminal as its three streams.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_with(command, None)
    }

    fn start_with(mut command: Command, size: Option<(u16, u16)>) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("open a terminal")?;
        grantpt(&master).context("grant the terminal")?;
        unlockpt(&master).context("unlock the terminal")?;
        if let Some((rows, columns)) = size {
            set_size(&master, rows, columns)?;
        }
        let name = ptsname(&master, Vec::new()).context("name the terminal")?;
        let slave: OwnedFd =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).context("open it")?;
        command
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        let child = command.spawn().context("start a program on a terminal")?;
        // The command keeps its copies of the slave: without them the end of the program ends the terminal.
        drop(command);
        let master = File::from(master);
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, sink) = (master.try_clone()?, seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if let Ok(mut seen) = sink.lock() {
                    seen.extend_from_slice(&buffer[..count]);
                }
            }
        });
        Ok(Self { master, seen, child })
    }

    /// The same, with a size from the beginning.
    pub fn start_sized(command: Command, rows: u16, columns: u16) -> Result<Self> {
        Self::start_with(command, Some((rows, columns)))
    }

    /// Gives the terminal another size. Only a program whose controlling terminal it is learns of that by itself.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        set_size(&self.master, rows, columns)
    }

    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.master.write_all(text.as_bytes()).context("type")
    }

    pub fn text(&self) -> String {
        self.seen
            .lock()
            .map(|seen| String::from_utf8_lossy(&seen).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a text has appeared.
    pub async fn wait_for(&self, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.text().contains(wanted) {
            if begun.elapsed() > crate::node::patience(10) {
                bail!("`{wanted}` did not appear; there is: {:?}", self.text());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("set the terminal's size")
}
