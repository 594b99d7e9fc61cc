use std::process::{Command, Stdio};

use super::*;

/// Makes a logging program out of a shell script.
///
/// Another process writes it: a child that a test beside this one forks would inherit our own writer for a moment, and
/// until its exec nobody could execute the script (ETXTBSY).
fn program(client: &Client, script: &str) -> String {
    let path = client.path("logger");
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin", &path])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let script = format!("#!/bin/sh\ncd {}\n{script}\n", client.dir.path().display());
    let mut stdin = install.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(install.wait().unwrap().success());
    format!("binary://{path}")
}

fn both(uri: &str) -> Spec<'_> {
    Spec {
        stdout: uri,
        stderr: uri,
        ..NOTHING
    }
}

#[tokio::test]
async fn a_program_gets_both_streams_its_arguments_and_two_variables() {
    let client = Client::new();
    let script =
        "echo \"$@\" >args; env -u PWD -u _ -u OLDPWD -u SHLVL | sort >env; exec 5>&-; cat <&3 >out; cat <&4 >err";
    let uri = program(&client, script) + "?b=2&a=x%20y";
    let (mut io, stdio) = Io::open(both(&uri)).await.unwrap();
    drop(write(stdio.stdout.unwrap(), b"to stdout").await);
    drop(write(stdio.stderr.unwrap(), b"to stderr").await);
    io.drain(LONG).await;
    assert_eq!(text(client.path("args")), "b 2 a x y\n");
    assert_eq!(text(client.path("env")), "CONTAINER_ID=c1\nCONTAINER_NAMESPACE=n1\n");
    assert_eq!(text(client.path("out")), "to stdout");
    assert_eq!(text(client.path("err")), "to stderr");
}

#[tokio::test]
async fn a_program_is_reaped_when_drained() {
    let client = Client::new();
    let uri = program(&client, "echo $$ >pid; exec 5>&-; exec cat <&3 >/dev/null");
    let (mut io, stdio) = Io::open(both(&uri)).await.unwrap();
    let pid: i32 = text(client.path("pid")).trim().parse().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(stdio);
    io.drain(LONG).await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_program_that_stays_is_asked_with_sigterm() {
    let client = Client::new();
    let script = "trap 'echo asked >asked; exit' TERM; exec 5>&-; while :; do sleep 0.01; done";
    let uri = program(&client, script);
    let (mut io, stdio) = Io::open(both(&uri)).await.unwrap();
    drop(stdio);
    io.drain(LONG).await;
    assert_eq!(text(client.path("asked")), "asked\n");
}

#[tokio::test]
async fn binary_v2_has_to_say_that_it_is_ready() {
    let client = Client::new();
    let uri = program(&client, "exit 3").replace("binary:", "binary-v2:");
    let expected = format!(
        "logging program {:?} never said that it is ready",
        client.path("logger")
    );
    assert_eq!(error(both(&uri)).await, expected);
    let uri = program(&client, "echo >&5; cat <&3").replace("binary:", "binary-v2:");
    let (mut io, _) = Io::open(both(&uri)).await.unwrap();
    io.drain(LONG).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_an_error_with_its_name() {
    let client = Client::new();
    let missing = error(both("binary:///nonexistent/logger")).await;
    assert_eq!(
        missing,
        "start logging program \"/nonexistent/logger\": No such file or directory (os error 2)"
    );
    let path = client.path("plain");
    std::fs::write(&path, "").unwrap();
    let plain = error(both(&format!("binary://{path}"))).await;
    assert_eq!(
        plain,
        format!("start logging program {path:?}: Permission denied (os error 13)")
    );
    let spec = Spec {
        stderr: "binary:///a",
        ..NOTHING
    };
    assert!(error(spec).await.starts_with("stderr cannot be binary:///a: "));
    let spec = Spec {
        stdout: "binary:///a",
        stderr: "binary:///b",
        ..NOTHING
    };
    assert!(error(spec).await.starts_with("stderr cannot be binary:///b: "));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_never_gets_ready_is_given_up_and_killed() {
    let client = Client::new();
    let uri = program(&client, "exec sleep 1000");
    let expected = format!(
        "logging program {:?} did not say within 10s that it is ready",
        client.path("logger")
    );
    assert_eq!(error(both(&uri)).await, expected);
}
