use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};

use super::*;

/// A raw pseudo terminal: master and slave.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings).unwrap();
    (master, slave)
}

async fn attached(client: &Client, stdin: bool) -> (Io, OwnedFd) {
    let (stdin, out) = (
        if stdin { client.fifo("in") } else { String::new() },
        client.fifo("out"),
    );
    let (mut io, stdio) = Io::open(Spec {
        stdin: &stdin,
        stdout: &out,
        terminal: true,
        ..NOTHING
    })
    .await
    .unwrap();
    assert!(stdio.stdin.is_none() && stdio.stdout.is_none() && stdio.stderr.is_none());
    let (master, slave) = terminal();
    io.attach_console(master).unwrap();
    io.process_starts().unwrap();
    (io, slave)
}

#[tokio::test]
async fn a_console_is_copied_both_ways_and_ends_at_hang_up() {
    let client = Client::new();
    let (mut io, slave) = attached(&client, true).await;
    let out = read_all(&client.path("out"));
    let stdin = client.path("in");
    let writer = thread(move || open_writer(&stdin)).await.unwrap();
    let writer = write(writer.into(), b"typed").await;
    let slave = thread(move || {
        let mut slave = File::from(slave);
        let mut typed = [0; 5];
        slave.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"typed");
        slave
    });
    let bytes = pattern(300_000);
    drop(write(slave.await.unwrap().into(), &bytes).await);
    assert!(out.await.unwrap() == bytes);
    drop(writer);
    io.drain(LONG).await;
}

#[tokio::test]
async fn resize_reaches_the_terminal() {
    let client = Client::new();
    let (io, slave) = attached(&client, false).await;
    io.resize(43, 132).unwrap();
    let size = tcgetwinsize(&slave).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (43, 132));
}

#[tokio::test]
async fn the_client_sees_the_end_of_a_process_whose_child_keeps_the_terminal() {
    let client = Client::new();
    let (io, slave) = attached(&client, false).await;
    let out = read_all(&client.path("out"));
    let slave = write(slave, b"last words").await;
    io.process_ended();
    assert_eq!(out.await.unwrap(), b"last words");
    drop(slave);
}

#[tokio::test]
async fn drain_copies_what_is_left_in_the_terminal() {
    let client = Client::new();
    let (mut io, slave) = attached(&client, false).await;
    let mut content = read_all(&client.path("out"));
    let bytes = pattern(3_000);
    let slave = write(slave, &bytes).await;
    tokio::select! { biased; () = io.drain(LONG) => {}, _ = &mut content => panic!("ended before drain") }
    assert!(content.await.unwrap() == bytes);
    drop(slave);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_process_alone() {
    let client = Client::new();
    let (mut io, slave) = attached(&client, false).await;
    let path = client.path("out");
    let reader = thread(move || File::open(path).unwrap()).await.unwrap();
    let bytes = pattern(300_000);
    let writer = tokio::spawn({
        let bytes = bytes.clone();
        async move { drop(write(slave, &bytes).await) }
    });
    let before = std::time::Instant::now();
    tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
        .await
        .unwrap_err();
    assert!(before.elapsed() < LONG && !writer.is_finished());
    let content = thread(move || {
        let (mut reader, mut content) = (reader, Vec::new());
        reader.read_to_end(&mut content).unwrap();
        content
    });
    assert!(content.await.unwrap() == bytes);
    writer.await.unwrap();
    io.drain(LONG).await;
}

#[tokio::test]
async fn a_console_may_go_to_a_file_or_a_program() {
    let client = Client::new();
    let log = client.path("log");
    for uri in [
        format!("file://{log}"),
        format!("binary:///bin/sh?-c=exec%205>%26-;cat%20<%263%20>>{log}"),
    ] {
        let (mut io, _) = Io::open(Spec {
            stdout: &uri,
            terminal: true,
            ..NOTHING
        })
        .await
        .unwrap();
        let (master, slave) = terminal();
        io.attach_console(master).unwrap();
        drop(write(slave, b"shown\n").await);
        io.drain(LONG).await;
    }
    assert_eq!(text(&log), "shown\nshown\n");
}
