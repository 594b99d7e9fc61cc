//! Attaching to what runs, by containerd's streaming server, as kubelet lets `kubectl attach` do it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use crate::context::Runtime;
use crate::pty::Terminal;
use crate::same;

use super::pods::{Cri, PodContainer, plain};

/// How long a line may be on its way.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says each line twice, once as an error.
const ECHO: [&str; 3] = [
    "sh",
    "-c",
    "while read line; do echo \"out $line\"; echo \"err $line\" >&2; done; echo over",
];

fn with_input(config: &mut Value) {
    config["stdin"] = json!(true);
}

/// Somebody who is attached without a terminal.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Client {
    fn attach(cri: &Cri<'_>, container: &PodContainer<'_, '_>, input: bool) -> Result<Self> {
        let mut command = cri.daemon.crictl();
        command.arg("attach");
        if input {
            command.arg("--stdin");
        }
        command.arg(&container.id);
        command.stdin(if input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start crictl attach")?;
        Ok(Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().context("no output")?).lines(),
            errors: BufReader::new(child.stderr.take().context("no errors")?).lines(),
            child,
        })
    }

    async fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("it has no input")?;
        let text = format!("{line}\n");
        input.write_all(text.as_bytes()).await.context("write to crictl attach")
    }

    /// The next line of output, and of errors.
    async fn hears(&mut self) -> Result<[String; 2]> {
        let both = async { tokio::try_join!(self.output.next_line(), self.errors.next_line()) };
        let lines = tokio::time::timeout(PATIENCE, both).await.context("nothing is heard")?;
        let (output, errors) = lines.context("read from crictl attach")?;
        Ok([output.unwrap_or_default(), errors.unwrap_or_default()])
    }

    /// Goes away without a word.
    async fn vanish(mut self) -> Result<()> {
        self.child.kill().await.context("kill crictl attach")
    }

    /// Ends what it says; its own end, and what it was told until then.
    async fn finish(mut self) -> Result<Vec<String>> {
        drop(self.input.take());
        let mut said = Vec::new();
        let rest = async {
            while let Some(line) = self.output.next_line().await? {
                said.push(line);
            }
            self.child.wait().await
        };
        let status = tokio::time::timeout(PATIENCE, rest)
            .await
            .context("crictl attach stays")?;
        let status = status.context("wait for crictl attach")?;
        ensure!(status.success(), "crictl attach ended with {status}");
        Ok(said)
    }
}

pub async fn streams(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod.start(&ECHO, with_input).await?;
    let mut client = Client::attach(cri, &container, true)?;
    for word in ["one", "two"] {
        client.say(word).await?;
        same!(client.hears().await?, [format!("out {word}"), format!("err {word}")]);
    }
    // Who only listens hears what another one's words come to; the words are said until that one is there.
    let mut listener = Client::attach(cri, &container, false)?;
    let mut number = 0;
    let heard = loop {
        number += 1;
        client.say(&number.to_string()).await?;
        same!(
            client.hears().await?,
            [format!("out {number}"), format!("err {number}")]
        );
        if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), listener.hears()).await {
            break heard?;
        }
        ensure!(number < 100, "who only listens hears nothing");
    };
    ensure!(heard[0].starts_with("out "), "heard {heard:?}");
    listener.vanish().await?;
    client.vanish().await?;
    let mut again = Client::attach(cri, &container, true)?;
    again.say("back").await?;
    same!(again.hears().await?, ["out back", "err back"]);
    again.vanish().await?;
    // All of it is in the log as well, whoever listened.
    cri.eventually("its log has everything", async || {
        let log = container.log()?;
        Ok(["out one\n", "err one\n", "out back\n", "err back\n"]
            .iter()
            .all(|line| log.contains(line)))
    })
    .await?;
    container.stop(0).await?;
    container.ended().await?;
    let error = Client::attach(cri, &container, false)?.errors.next_line().await?;
    ensure!(
        error
            .as_ref()
            .is_some_and(|error| error.contains("container is in CONTAINER_EXITED state")),
        "attached to what has ended: {error:?}"
    );
    pod.remove().await
}

pub async fn input_once(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let once = pod
        .start(&ECHO, |config| {
            with_input(config);
            config["stdin_once"] = json!(true);
        })
        .await?;
    let mut client = Client::attach(cri, &once, true)?;
    client.say("word").await?;
    same!(client.hears().await?, ["out word", "err word"]);
    same!(client.finish().await?, ["over"]);
    same!(once.ended().await?["exitCode"], json!(0));
    // The input of another one is closed by nobody.
    let often = pod.start(&ECHO, with_input).await?;
    for word in ["first", "second"] {
        let mut client = Client::attach(cri, &often, true)?;
        client.say(word).await?;
        same!(client.hears().await?, [format!("out {word}"), format!("err {word}")]);
        drop(client.input.take());
        client.vanish().await?;
    }
    same!(often.inspect().await?["status"]["state"], json!("CONTAINER_RUNNING"));
    // And one without has none from the beginning.
    let without = pod.start(&ECHO, plain).await?;
    same!(without.ended().await?["exitCode"], json!(0));
    same!(without.log()?, "over\n");
    pod.remove().await
}

fn attach_terminal(cri: &Cri<'_>, container: &PodContainer<'_, '_>, rows: u16, columns: u16) -> Result<Terminal> {
    let mut command = cri.daemon.crictl();
    command.args(["attach", "--stdin", "--tty", &container.id]);
    Terminal::start_sized(command, rows, columns)
}

pub async fn terminal(cri: &Cri<'_>) -> Result<()> {
    let pod = cri.pod(plain).await?;
    let container = pod
        .start(&["sh"], |config| {
            with_input(config);
            config["tty"] = json!(true);
        })
        .await?;
    let mut terminal = attach_terminal(cri, &container, 33, 77)?;
    let size = async |terminal: &mut Terminal, wanted: &str| {
        // The size is on its way beside what is typed.
        cri.eventually("the terminal has its size", async || {
            terminal.type_text("echo size $(stty size) end\r")?;
            Ok(terminal.wait_for("end\r\n").await.is_ok() && terminal.text().contains(&format!("size {wanted} end")))
        })
        .await
    };
    size(&mut terminal, "33 77").await?;
    terminal.resize(44, 111)?;
    let pid = terminal
        .child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    kill_process(pid.context("crictl attach has ended")?, Signal::WINCH).context("tell it of its new size")?;
    size(&mut terminal, "44 111").await?;
    terminal.type_text("word=kept; echo errors to the terminal >&2; [ -t 2 ] && echo it is $((40 + 2))\r")?;
    terminal.wait_for("errors to the terminal\r\n").await?;
    terminal.wait_for("it is 42\r\n").await?;
    // ^C is for what runs, not for who is attached. In a sentry nobody but an exec hears of it.
    if cri.runtime != Runtime::Gvisor {
        terminal.type_text("sleep 100000\r")?;
        cri.eventually("sleep runs", async || {
            Ok(container.sh("pgrep -f 'sleep 10000[0]'").await?.code == 0)
        })
        .await?;
        terminal.type_text("\u{3}")?;
        terminal.type_text("echo $((1 + 129))\r")?;
        terminal.wait_for("130\r\n").await?;
    }
    // ^P^Q leaves it.
    terminal.type_text("\u{10}\u{11}")?;
    let status = tokio::time::timeout(PATIENCE, terminal.child.wait()).await;
    status
        .context("^P^Q does not leave it")?
        .context("wait for crictl attach")?;
    let mut terminal = attach_terminal(cri, &container, 55, 99)?;
    size(&mut terminal, "55 99").await?;
    terminal.type_text("echo it is $word; exit 5\r")?;
    terminal.wait_for("it is kept\r\n").await?;
    same!(container.ended().await?["exitCode"], json!(5));
    let status = tokio::time::timeout(PATIENCE, terminal.child.wait()).await;
    let status = status
        .context("crictl attach stays")?
        .context("wait for crictl attach")?;
    ensure!(status.success(), "crictl attach ended with {status}");
    pod.remove().await
}
