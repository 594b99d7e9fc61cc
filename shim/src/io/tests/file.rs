use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn both_streams_are_appended_to_one_file() {
    let client = Client::new();
    let path = client.path("logs of c1/deep/log");
    let uri = format!("file://{}", path.replace(' ', "%20"));
    for round in ["1", "2"] {
        let (mut io, stdio) = Io::open(Spec {
            stdout: &uri,
            stderr: &uri,
            ..NOTHING
        })
        .await
        .unwrap();
        let stdout = write(stdio.stdout.unwrap(), round.as_bytes()).await;
        let bytes = pattern(200_000);
        drop(write(stdio.stderr.unwrap(), &bytes).await);
        drop(stdout);
        io.drain(LONG).await;
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * 200_001);
    assert_eq!(mode(&path), 0o644);
    assert_eq!(mode(&client.path("logs of c1")), 0o755);
}

#[tokio::test]
async fn the_process_cannot_truncate_its_log() {
    let client = Client::new();
    let path = client.path("log");
    std::fs::write(&path, "before\n").unwrap();
    let uri = format!("file://{path}");
    let (mut io, stdio) = stdout_to(&uri).await;
    assert!(rustix::fs::ftruncate(stdio.stdout.as_ref().unwrap(), 0).is_err());
    drop(write(stdio.stdout.unwrap(), b"after\n").await);
    io.drain(LONG).await;
    assert_eq!(text(&path), "before\nafter\n");
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_process() {
    let uri = "file:///dev/full";
    let (mut io, stdio) = stdout_to(uri).await;
    drop(write(stdio.stdout.unwrap(), &pattern(300_000)).await);
    io.drain(LONG).await;
}

#[tokio::test]
async fn what_cannot_be_a_log_file_is_refused_by_name() {
    let client = Client::new();
    let fifo = client.fifo("fifo");
    let uri = format!("file://{fifo}");
    let expected = format!("open log file {fifo:?}: No such device or address (os error 6)");
    assert_eq!(
        error(Spec {
            stdout: &uri,
            ..NOTHING
        })
        .await,
        expected
    );
    let dir = client.dir.path().display().to_string();
    let uri = format!("file://{dir}");
    let expected = format!("open log file {dir:?}: Is a directory (os error 21)");
    assert_eq!(
        error(Spec {
            stdout: &uri,
            ..NOTHING
        })
        .await,
        expected
    );
    let below = format!("file://{}/x/y", fifo);
    let below = error(Spec {
        stdout: &below,
        ..NOTHING
    })
    .await;
    assert!(
        below.starts_with("create the directory of log file") && below.contains("fifo/x/y"),
        "{below}"
    );
}
