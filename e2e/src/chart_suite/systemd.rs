//! As much of systemd as restarting one unit takes: GetUnit, RestartUnit and two properties, on a socket like its
//! private one.
//!
//! Written from the D-Bus specification and from what systemd 252 sends, without a look at the installer's side.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The unit, and what it runs.
pub struct Unit {
    pub program: PathBuf,
    /// The configuration that it is started with.
    pub config: RefCell<PathBuf>,
    pub path: String,
    pub log: PathBuf,
    /// Answers once containerd is up.
    pub socket: PathBuf,
    child: RefCell<Option<Child>>,
    busy: Cell<bool>,
    /// What was on the node whenever it was restarted.
    pub restarts: RefCell<Vec<Seen>>,
    /// What a restart looks at: the shim, and the file with the handlers.
    pub watched: RefCell<(PathBuf, PathBuf)>,
    /// From now on a restart fails.
    pub fails: Cell<bool>,
}

/// The node at the moment of a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub shim: bool,
    pub handler: bool,
}

impl Unit {
    pub fn new(program: PathBuf, config: PathBuf, path: String, log: PathBuf, socket: PathBuf) -> Self {
        Self {
            program,
            config: RefCell::new(config),
            path,
            log,
            socket,
            child: RefCell::new(None),
            busy: Cell::new(false),
            restarts: RefCell::default(),
            watched: RefCell::default(),
            fails: Cell::new(false),
        }
    }

    /// Starts containerd and waits until its socket is listened on.
    pub async fn start(&self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&*self.config.borrow())
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        *self.child.borrow_mut() = Some(child);
        for _ in 0..1200 {
            if self.ended() {
                bail!("containerd ended at its start: {}", self.log_tail());
            }
            if UnixStream::connect(&self.socket).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("containerd does not answer: {}", self.log_tail())
    }

    fn ended(&self) -> bool {
        let mut child = self.child.borrow_mut();
        child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    pub async fn stop(&self) -> Result<()> {
        let Some(mut child) = self.child.borrow_mut().take() else {
            return Ok(());
        };
        if let Some(pid) = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
        {
            kill_process(pid, Signal::TERM).ok();
        }
        child.wait().await.context("wait for containerd's end")?;
        Ok(())
    }

    /// Ends containerd without a word, and waits for its end.
    pub fn kill_now(&self) {
        let Some(mut child) = self.child.borrow_mut().take() else {
            return;
        };
        child.start_kill().ok();
        for _ in 0..500 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    async fn restart(&self) {
        let (shim, file) = self.watched.borrow().clone();
        let text = std::fs::read_to_string(file).unwrap_or_default();
        self.restarts.borrow_mut().push(Seen {
            shim: shim.exists(),
            handler: text.contains("runtimes.nucleus]"),
        });
        if let Err(error) = self.stop().await {
            eprintln!("chart: stop containerd: {error:#}");
        }
        if !self.fails.get()
            && let Err(error) = self.start().await
        {
            eprintln!("chart: {error:#}");
        }
        self.busy.set(false);
    }
}

/// Serves the unit on a socket, until the handle is aborted.
pub fn serve(socket: &Path, unit: Rc<Unit>) -> Result<JoinHandle<()>> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    Ok(tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let unit = unit.clone();
            tokio::task::spawn_local(async move {
                // The installer hangs up when it is done.
                converse(stream, unit).await.ok();
            });
        }
    }))
}

async fn converse(mut stream: UnixStream, unit: Rc<Unit>) -> Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"BEGIN\r\n") {
        line.push(stream.read_u8().await?);
        if line.ends_with(b"\r\n") && line.starts_with(b"\0AUTH EXTERNAL ") {
            stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").await?;
            line.clear();
        }
    }
    let mut serial = 0;
    loop {
        let call = Call::read(&mut stream).await?;
        serial += 1;
        // systemd tells whoever is connected of each change, wanted or not.
        let signal = message(
            4,
            serial,
            &[(1, 'o', "/x"), (2, 's', "a.b"), (3, 's', "C")],
            None,
            "sa{sv}as",
            &[0; 20],
        );
        stream.write_all(&signal).await?;
        serial += 1;
        stream.write_all(&call.answer(serial, &unit)).await?;
    }
}

struct Call {
    serial: u32,
    member: String,
    arguments: Vec<String>,
}

const UNIT: &str = "containerd.service";

impl Call {
    async fn read(stream: &mut UnixStream) -> Result<Self> {
        let mut head = [0; 16];
        stream.read_exact(&mut head).await?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        ensure!(head[..4] == *b"l\x01\x00\x01", "no call: {head:?}");
        let mut fields = vec![0; usize::try_from(number(12))?.next_multiple_of(8)];
        stream.read_exact(&mut fields).await?;
        let mut body = vec![0; usize::try_from(number(4))?];
        stream.read_exact(&mut body).await?;
        fields.truncate(usize::try_from(number(12))?);
        let mut member = String::new();
        let mut at = 0;
        while at < fields.len() {
            at = at.next_multiple_of(8);
            let (code, kind) = (fields[at], fields[at + 2]);
            at += 4;
            if kind == b'g' {
                at += 2 + usize::from(fields[at]);
            } else {
                let text = text_at(&fields, &mut at)?;
                if code == 3 {
                    member = text;
                }
            }
        }
        let mut arguments = Vec::new();
        let mut at = 0;
        while at < body.len() {
            arguments.push(text_at(&body, &mut at)?);
        }
        Ok(Self {
            serial: number(8),
            member,
            arguments,
        })
    }

    fn answer(&self, serial: u32, unit: &Rc<Unit>) -> Vec<u8> {
        let argument = |number: usize| self.arguments.get(number).map_or("", String::as_str);
        let reply = |signature: &str, body: &[u8]| message(2, serial, &[], Some(self.serial), signature, body);
        match self.member.as_str() {
            "GetUnit" if argument(0) == UNIT => {
                reply("o", &text("/org/freedesktop/systemd1/unit/containerd_2eservice"))
            }
            "RestartUnit" if argument(0) == UNIT && argument(1) == "replace" => {
                unit.busy.set(true);
                let unit = unit.clone();
                tokio::task::spawn_local(async move { unit.restart().await });
                reply("o", &text("/org/freedesktop/systemd1/job/7"))
            }
            "Get" if argument(1) == "ActiveState" => {
                let state = match (unit.busy.get(), unit.ended()) {
                    (true, _) => "activating",
                    (false, false) => "active",
                    (false, true) => "failed",
                };
                let mut body = b"\x01s\0\0".to_vec();
                body.extend(text(state));
                reply("v", &body)
            }
            "Get" if argument(1) == "Job" => {
                let mut body = b"\x04(uo)\0\0\0".to_vec();
                body.resize(8, 0);
                body.extend(if unit.busy.get() { 7_u32 } else { 0 }.to_le_bytes());
                body.extend(text("/"));
                reply("v", &body)
            }
            _ => {
                let words = text(&format!("Unit {} not loaded.", argument(0)));
                let name = [(4, 's', "org.freedesktop.systemd1.NoSuchUnit")];
                message(3, serial, &name, Some(self.serial), "s", &words)
            }
        }
    }
}

fn text(words: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(words.len()).unwrap_or(0).to_le_bytes().to_vec();
    bytes.extend(words.as_bytes());
    bytes.push(0);
    bytes
}

fn text_at(bytes: &[u8], at: &mut usize) -> Result<String> {
    let begin = at.next_multiple_of(4);
    let length = bytes.get(begin..begin + 4).context("a string without a length")?;
    let length = usize::try_from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]))?;
    let words = bytes
        .get(begin + 4..begin + 4 + length)
        .context("a string that is cut off")?;
    *at = begin + 4 + length + 1;
    Ok(String::from_utf8(words.to_vec())?)
}

fn message(
    kind: u8,
    serial: u32,
    named: &[(u8, char, &str)],
    reply_to: Option<u32>,
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut fields: Vec<u8> = Vec::new();
    for (code, kind, words) in named {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([*code, 1, *kind as u8, 0]);
        fields.extend(text(words));
    }
    if let Some(serial) = reply_to {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([5, 1, b'u', 0]);
        fields.extend(serial.to_le_bytes());
    }
    fields.resize(fields.len().next_multiple_of(8), 0);
    fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(0)]);
    fields.extend(signature.as_bytes());
    fields.push(0);
    let mut bytes = vec![b'l', kind, 1, 1];
    bytes.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(serial.to_le_bytes());
    bytes.extend(u32::try_from(fields.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}
