use super::*;

#[tokio::test]
async fn nothing_asked_for_is_dev_null() {
    let (mut io, stdio) = Io::open(NOTHING).await.unwrap();
    assert!(stdio.stdin.is_none() && stdio.stdout.is_none() && stdio.stderr.is_none());
    io.close_stdin();
    io.resize(1, 1).unwrap();
    io.drain(LONG).await;
}

#[tokio::test]
async fn output_reaches_its_client_and_ends_with_the_process() {
    let client = Client::new();
    let (out, err) = (client.fifo("out"), client.fifo("err"));
    let (mut io, stdio) = Io::open(Spec {
        stdout: &out,
        stderr: &err,
        ..NOTHING
    })
    .await
    .unwrap();
    let (out, err) = (read_all(&out), read_all(&err));
    let bytes = pattern(1_000_000);
    write(stdio.stderr.unwrap(), b"oops").await;
    write(stdio.stdout.unwrap(), &bytes).await;
    assert!(out.await.unwrap() == bytes);
    assert_eq!(err.await.unwrap(), b"oops");
    io.drain(LONG).await;
}

#[tokio::test]
async fn a_client_that_comes_after_the_process_has_ended_still_gets_its_output() {
    let client = Client::new();
    let out = client.fifo("out");
    let (mut io, stdio) = stdout_to(&out).await;
    write(stdio.stdout.unwrap(), b"short").await;
    tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>())
        .await
        .unwrap_err();
    let read = read_all(&out);
    io.drain(LONG).await;
    assert_eq!(read.await.unwrap(), b"short");
}

#[tokio::test]
async fn a_client_that_never_comes_holds_drain_up_to_its_limit_only() {
    let client = Client::new();
    let out = client.fifo("out");
    let (mut io, stdio) = stdout_to(&out).await;
    write(stdio.stdout.unwrap(), b"lost").await;
    io.drain(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_client_may_go_and_another_come() {
    let client = Client::new();
    let path = client.fifo("out");
    let opened = thread({
        let path = path.clone();
        move || File::open(path).unwrap()
    });
    let (mut io, stdio) = stdout_to(&path).await;
    let mut first = opened.await.unwrap();
    let stdout = write(stdio.stdout.unwrap(), b"one").await;
    let mut read = [0; 3];
    let first = thread(move || {
        first.read_exact(&mut read).unwrap();
        read
    });
    assert_eq!(&first.await.unwrap(), b"one");
    let stdout = write(stdout, b"between").await;
    let second = read_all(&path);
    drop(write(stdout, b" two").await);
    assert_eq!(second.await.unwrap(), b"between two");
    // A client that was there and has gone for good is not waited for.
    io.drain(LONG).await;
}

#[tokio::test]
async fn a_slow_client_gets_every_byte_and_holds_nobody_up() {
    let client = Client::new();
    let (slow, fast) = (client.fifo("slow"), client.fifo("fast"));
    let (mut io, stdio) = Io::open(Spec {
        stdout: &slow,
        stderr: &fast,
        ..NOTHING
    })
    .await
    .unwrap();
    let bytes = pattern(400_000);
    let writer = tokio::spawn({
        let bytes = bytes.clone();
        async move { drop(write(stdio.stdout.unwrap(), &bytes).await) }
    });
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let slow = thread(move || {
        let mut file = File::open(slow).unwrap();
        let mut content = Vec::new();
        wait.recv().unwrap();
        let mut chunk = [0; 777];
        loop {
            match file.read(&mut chunk).unwrap() {
                0 => return content,
                count => content.extend_from_slice(&chunk[..count]),
            }
        }
    });
    // The slow one reads nothing until the fast one has everything.
    let fast = read_all(&fast);
    drop(write(stdio.stderr.unwrap(), &bytes).await);
    assert!(fast.await.unwrap() == bytes);
    go.send(()).unwrap();
    assert!(slow.await.unwrap() == bytes);
    writer.await.unwrap();
    io.drain(LONG).await;
}

#[tokio::test]
async fn many_small_writes_arrive_in_order() {
    let client = Client::new();
    let out = client.fifo("out");
    let (mut io, stdio) = stdout_to(&out).await;
    let out = read_all(&out);
    let writer = thread(move || {
        let mut file = File::from(stdio.stdout.unwrap());
        for line in 0..20_000 {
            writeln!(file, "{line}").unwrap();
        }
    });
    writer.await.unwrap();
    let expected: String = (0..20_000).map(|line| format!("{line}\n")).collect();
    assert!(out.await.unwrap() == expected.as_bytes());
    io.drain(LONG).await;
}

#[tokio::test]
async fn drain_ends_a_client_that_a_background_child_would_keep() {
    let client = Client::new();
    let out = client.fifo("out");
    let (mut io, stdio) = stdout_to(&out).await;
    let out = read_all(&out);
    let held = write(stdio.stdout.unwrap(), b"hi").await;
    io.drain(Duration::from_millis(50)).await;
    assert_eq!(out.await.unwrap(), b"hi");
    drop(held);
}

#[tokio::test]
async fn dropping_without_drain_ends_clients_too() {
    let client = Client::new();
    let out = client.fifo("out");
    let (io, stdio) = stdout_to(&out).await;
    let out = read_all(&out);
    let held = write(stdio.stdout.unwrap(), b"").await;
    drop(io);
    out.await.unwrap();
    drop(held);
}

#[tokio::test]
async fn input_waits_for_its_client_and_ends_when_both_have_closed() {
    let client = Client::new();
    let stdin = client.fifo("in");
    let (mut io, stdio) = Io::open(Spec {
        stdin: &stdin,
        ..NOTHING
    })
    .await
    .unwrap();
    io.process_starts().unwrap();
    let read = thread(move || {
        let mut content = Vec::new();
        File::from(stdio.stdin.unwrap()).read_to_end(&mut content).unwrap();
        content
    });
    let bytes = pattern(300_000);
    for part in bytes.chunks(100_000) {
        // A client that goes without CloseIO may come back: that is how containerd restarts.
        let writer = thread({
            let stdin = stdin.clone();
            move || open_writer(&stdin)
        });
        drop(write(writer.await.unwrap().into(), part).await);
    }
    assert!(!read.is_finished());
    io.close_stdin();
    assert!(read.await.unwrap() == bytes);
    io.drain(LONG).await;
}

#[tokio::test]
async fn close_stdin_before_any_client_is_end_of_file() {
    let client = Client::new();
    let stdin = client.fifo("in");
    let (mut io, stdio) = Io::open(Spec {
        stdin: &stdin,
        ..NOTHING
    })
    .await
    .unwrap();
    io.process_starts().unwrap();
    io.close_stdin();
    let read = thread(move || File::from(stdio.stdin.unwrap()).read(&mut [0; 1]).unwrap());
    assert_eq!(read.await.unwrap(), 0);
    io.drain(LONG).await;
}

#[tokio::test]
async fn a_process_that_closes_its_input_breaks_its_clients_pipe() {
    let client = Client::new();
    let stdin = client.fifo("in");
    let (mut io, stdio) = Io::open(Spec {
        stdin: &stdin,
        ..NOTHING
    })
    .await
    .unwrap();
    io.process_starts().unwrap();
    drop(stdio.stdin);
    let broken = thread(move || {
        let mut file = open_writer(&stdin);
        loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                return error.kind();
            }
        }
    });
    assert_eq!(broken.await.unwrap(), std::io::ErrorKind::BrokenPipe);
    io.drain(LONG).await;
}

#[tokio::test]
async fn the_process_gets_blocking_pipes_of_the_owner_asked_for() {
    let client = Client::new();
    let (stdin, out) = (client.fifo("in"), client.fifo("out"));
    let spec = Spec {
        stdin: &stdin,
        stdout: &out,
        io_uid: 12,
        io_gid: 34,
        ..NOTHING
    };
    let asked = if rustix::process::geteuid().is_root() {
        spec
    } else {
        Spec {
            io_uid: 0,
            io_gid: 0,
            ..spec
        }
    };
    let (_io, stdio) = Io::open(asked).await.unwrap();
    for fd in [stdio.stdin.unwrap(), stdio.stdout.unwrap()] {
        assert!(
            !rustix::fs::fcntl_getfl(&fd)
                .unwrap()
                .contains(rustix::fs::OFlags::NONBLOCK)
        );
        let stat = rustix::fs::fstat(&fd).unwrap();
        if asked.io_uid != 0 {
            assert_eq!((stat.st_uid, stat.st_gid), (12, 34));
        }
    }
}

#[tokio::test]
async fn what_is_not_a_fifo_is_refused_by_name() {
    let client = Client::new();
    let file = client.path("file");
    std::fs::write(&file, "").unwrap();
    let socket = client.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = client.path("link");
    std::os::unix::fs::symlink(client.fifo("fifo"), &link).unwrap();
    let dir = client.dir.path().display().to_string();
    for (path, kind) in [
        (&file, "regular file"),
        (&dir, "directory"),
        (&socket, "socket"),
        (&link, "symbolic link"),
    ] {
        let expected = format!("{path:?} is a {kind}, not a FIFO");
        assert_eq!(
            error(Spec {
                stdout: path,
                ..NOTHING
            })
            .await,
            expected
        );
        assert_eq!(error(Spec { stdin: path, ..NOTHING }).await, expected);
        assert_eq!(
            error(Spec {
                stdin: path,
                terminal: true,
                ..NOTHING
            })
            .await,
            expected
        );
    }
    let missing = client.path("missing");
    let expected = format!("open FIFO {missing:?}: No such file or directory (os error 2)");
    assert_eq!(
        error(Spec {
            stderr: &missing,
            ..NOTHING
        })
        .await,
        expected
    );
    let stdin = error(Spec {
        stdin: "file:///tmp/x",
        ..NOTHING
    })
    .await;
    assert_eq!(stdin, "stdin cannot be file:///tmp/x: input comes from a FIFO");
}

#[tokio::test]
async fn a_client_cannot_write_before_the_process_starts() {
    let client = Client::new();
    let stdin = client.fifo("in");
    let (mut io, stdio) = Io::open(Spec {
        stdin: &stdin,
        ..NOTHING
    })
    .await
    .unwrap();
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let early = rustix::fs::open(&stdin, flags, rustix::fs::Mode::empty());
    assert_eq!(early.unwrap_err(), rustix::io::Errno::NXIO);
    io.process_starts().unwrap();
    let writer = thread(move || open_writer(&stdin).write_all(b"in time").unwrap());
    writer.await.unwrap();
    io.close_stdin();
    let read = thread(move || {
        let mut content = String::new();
        File::from(stdio.stdin.unwrap()).read_to_string(&mut content).unwrap();
        content
    });
    assert_eq!(read.await.unwrap(), "in time");
    io.drain(LONG).await;
}
