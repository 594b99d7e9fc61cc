//! Against a scripted systemd on a socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::connection::Sockets;
use super::message::tests::message;
use super::message::{self, ERROR, Message, PREFIX, RETURN, SIGNAL, Writer};
use super::{Error, Scope, Unit};

/// What the other side does with the next call of the manager.
enum Answer {
    /// Starts a job that ends so.
    Job(&'static str),
    /// The end of the job is told before the answer that names it.
    EarlyJob(&'static str),
    /// Starts a job of whose end nobody is told.
    Untold,
    /// Nothing to say.
    Done,
    Error(&'static str),
    /// Systemd is not on the bus for the moment.
    Absent,
    /// The connection breaks.
    Break,
    /// Nothing comes, ever.
    Silence,
    /// Bytes that are no message.
    Garbage,
}

/// A systemd that answers as told, connection by connection; returns the members that were called.
fn systemd(directory: &Path, socket: &str, script: Vec<Vec<Answer>>) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(directory.join(socket)).unwrap();
    std::thread::spawn(move || {
        let mut called = Vec::new();
        for answers in script {
            let (mut stream, _) = listener.accept().unwrap();
            authenticate(&mut stream);
            for answer in answers {
                let Some((serial, member)) = next_call(&mut stream) else {
                    break;
                };
                called.push(member);
                if !reply(&mut stream, serial, answer) {
                    break;
                }
            }
        }
        called
    })
}

fn authenticate(stream: &mut UnixStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes());
    stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
    let mut begin = [0; 7];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"BEGIN\r\n");
}

/// The serial and the member of the next call; None where the client went.
fn next_call(stream: &mut UnixStream) -> Option<(u32, String)> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).ok()?;
    let mut bytes = vec![0; message::length(&prefix).unwrap()];
    bytes[..PREFIX].copy_from_slice(&prefix);
    stream.read_exact(&mut bytes[PREFIX..]).unwrap();
    let serial = u32::from_ne_bytes(prefix[8..12].try_into().unwrap());
    let member = Message::parse(&bytes).unwrap().member;
    if member == "Ping" {
        return next_call(stream);
    }
    Some((serial, member))
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

fn removed(stream: &mut UnixStream, job: &str, result: &str) {
    let mut body = Writer::default();
    body.u32(7);
    for text in [job, "c1.scope", result] {
        body.text(text);
    }
    let names = ["org.freedesktop.systemd1.Manager", "JobRemoved", ""];
    stream.write_all(&message(SIGNAL, None, names, "uoss", body)).unwrap();
}

fn reply(stream: &mut UnixStream, serial: u32, answer: Answer) -> bool {
    let text = |text: &str| {
        let mut body = Writer::default();
        body.text(text);
        body
    };
    let returned = message(RETURN, Some(serial), ["", "", ""], "o", text(JOB));
    match answer {
        Answer::Job(result) => {
            stream.write_all(&returned).unwrap();
            // Others have jobs as well.
            removed(stream, "/org/freedesktop/systemd1/job/6", "failed");
            removed(stream, JOB, result);
        }
        Answer::EarlyJob(result) => {
            removed(stream, JOB, result);
            stream.write_all(&returned).unwrap();
        }
        Answer::Untold => stream.write_all(&returned).unwrap(),
        Answer::Done => {
            let bytes = message(RETURN, Some(serial), ["", "", ""], "", Writer::default());
            stream.write_all(&bytes).unwrap();
        }
        Answer::Error(name) => {
            let name = format!("org.freedesktop.systemd1.{name}");
            let bytes = message(ERROR, Some(serial), ["", "", &name], "s", text("because"));
            stream.write_all(&bytes).unwrap();
        }
        Answer::Absent => {
            let name = "org.freedesktop.DBus.Error.NoReply";
            let bytes = message(ERROR, Some(serial), ["", "", name], "s", text("because"));
            stream.write_all(&bytes).unwrap();
        }
        Answer::Break => return false,
        Answer::Garbage => stream.write_all(&[b'x'; 64]).unwrap(),
        Answer::Silence => {
            // Until the client has had enough.
            let mut byte = [0];
            stream.read_exact(&mut byte).ok();
            return false;
        }
    }
    true
}

fn unit(directory: &TempDir) -> Unit {
    let path = directory.path();
    Unit {
        scope: Scope::parse(":nucleus:c1").unwrap(),
        sockets: Sockets {
            booted: path.into(),
            private: path.join("private"),
            bus: path.join("bus"),
        },
        processes: path.join("proc"),
    }
}

/// Puts the member into the scope.
fn place(directory: &TempDir) {
    let own = directory.path().join(format!("proc/{}", member()));
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("cgroup"), "0::/system.slice/nucleus-c1.scope\n").unwrap();
}

/// Our own pid: it is in no scope of that name, unless [`place`] says so.
fn member() -> i32 {
    std::process::id() as i32
}

fn started(script: Vec<Vec<Answer>>) -> (Result<(), Error>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let thread = systemd(directory.path(), "private", script);
    let result = unit(&directory).start("a test", member(), Vec::new());
    (result, thread.join().unwrap())
}

#[test]
fn a_scope_is_there_when_its_job_is_done() {
    for answer in [Answer::Job("done"), Answer::EarlyJob("done")] {
        let (result, called) = started(vec![vec![answer]]);
        result.unwrap();
        assert_eq!(called, ["StartTransientUnit"]);
    }
}

#[test]
fn a_job_that_fails_is_told_with_the_unit_and_the_result() {
    let (result, _) = started(vec![vec![Answer::Job("failed")]]);
    let text = result.unwrap_err().to_string();
    assert!(text.contains("nucleus-c1.scope ended with \"failed\""), "{text}");
}

#[test]
fn a_property_that_systemd_refuses_is_told_in_its_words() {
    let (result, _) = started(vec![vec![Answer::Error("PropertyReadOnly")]]);
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains(
            "refuses StartTransientUnit of nucleus-c1.scope: because (org.freedesktop.systemd1.PropertyReadOnly)"
        ),
        "{text}"
    );
}

#[test]
fn a_scope_that_failed_before_gives_its_name_free() {
    let (result, called) = started(vec![vec![
        Answer::Error("UnitExists"),
        Answer::Done,
        Answer::Job("done"),
    ]]);
    result.unwrap();
    assert_eq!(called, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn a_scope_that_lives_is_not_taken_over() {
    let exists = || Answer::Error("UnitExists");
    let (result, _) = started(vec![vec![exists(), Answer::Done, exists()]]);
    assert!(matches!(result, Err(Error::Exists { .. })), "{result:?}");
}

#[test]
fn a_systemd_that_executes_itself_anew_is_asked_again() {
    let (result, called) = started(vec![vec![Answer::Break], Vec::new(), vec![Answer::Job("done")]]);
    result.unwrap();
    assert_eq!(called, ["StartTransientUnit", "StartTransientUnit"]);
}

#[test]
fn a_request_that_was_carried_out_behind_a_broken_connection_is_not_made_again() {
    let directory = tempfile::tempdir().unwrap();
    place(&directory);
    let script = vec![vec![Answer::Break], vec![Answer::Done]];
    let thread = systemd(directory.path(), "private", script);
    unit(&directory).start("a test", member(), Vec::new()).unwrap();
    assert_eq!(thread.join().unwrap(), ["StartTransientUnit"]);
}

#[test]
fn a_scope_whose_job_ended_without_a_word_is_there_if_it_holds_the_process() {
    let directory = tempfile::tempdir().unwrap();
    place(&directory);
    let script = vec![vec![Answer::Untold, Answer::Untold, Answer::Error("NoSuchJob")]];
    let thread = systemd(directory.path(), "private", script);
    unit(&directory).start("a test", member(), Vec::new()).unwrap();
    // A job that systemd still has is waited for.
    assert_eq!(thread.join().unwrap(), ["StartTransientUnit", "GetJob", "GetJob"]);
}

#[test]
fn a_scope_whose_job_ended_without_a_word_and_without_the_process_is_made_again() {
    let lost = vec![Answer::Untold, Answer::Error("NoSuchJob")];
    let (result, called) = started(vec![lost, vec![Answer::Job("done")]]);
    result.unwrap();
    assert_eq!(called, ["StartTransientUnit", "GetJob", "StartTransientUnit"]);
}

#[test]
fn a_scope_that_was_asked_for_behind_a_broken_connection_is_not_somebody_else_s() {
    let exists = || Answer::Error("UnitExists");
    let again = vec![exists(), Answer::Done, exists(), Answer::Done, Answer::Job("done")];
    let (result, called) = started(vec![vec![Answer::Break], again]);
    result.unwrap();
    assert_eq!(called.len(), 6, "{called:?}");
}

#[test]
fn the_end_of_a_scope_that_nobody_told_of_is_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let script = vec![vec![Answer::Untold, Answer::Error("NoSuchJob"), Answer::Done]];
    let thread = systemd(directory.path(), "private", script);
    unit(&directory).stop(Duration::from_secs(20)).unwrap();
    assert_eq!(thread.join().unwrap(), ["StopUnit", "GetJob", "ResetFailedUnit"]);
}

#[test]
fn bytes_that_are_no_message_are_told() {
    let (result, _) = started(vec![vec![Answer::Garbage]]);
    assert!(matches!(result, Err(Error::Malformed { .. })), "{result:?}");
}

#[test]
fn a_systemd_that_does_not_answer_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let thread = systemd(directory.path(), "private", vec![vec![Answer::Silence]]);
    let result = unit(&directory).stop(Duration::from_millis(50));
    assert!(
        matches!(result, Err(Error::Timeout { member: "StopUnit", .. })),
        "{result:?}"
    );
    thread.join().unwrap();
}

#[test]
fn without_the_private_socket_the_bus_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let script = vec![vec![Answer::Done, Answer::Done, Answer::Done, Answer::Job("done")]];
    let thread = systemd(directory.path(), "bus", script);
    unit(&directory).start("a test", member(), Vec::new()).unwrap();
    let called = thread.join().unwrap();
    assert_eq!(called, ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]);
}

#[test]
fn a_private_socket_at_which_nobody_listens_is_waited_for_although_there_is_a_bus() {
    let directory = tempfile::tempdir().unwrap();
    let private = directory.path().join("private");
    drop(UnixListener::bind(&private).unwrap());
    // Whoever connects here waits for ever.
    let _bus = UnixListener::bind(directory.path().join("bus")).unwrap();
    let path = directory.path().to_owned();
    let again = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        std::fs::remove_file(&private).unwrap();
        systemd(&path, "private", vec![vec![Answer::Job("done")]])
    });
    unit(&directory).start("a test", member(), Vec::new()).unwrap();
    assert_eq!(again.join().unwrap().join().unwrap(), ["StartTransientUnit"]);
}

#[test]
fn a_systemd_that_is_away_or_slow_has_refused_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let thread = systemd(directory.path(), "private", vec![vec![Answer::Silence]]);
    let error = unit(&directory).stop(Duration::from_millis(50)).unwrap_err();
    assert!(error.is_absence(), "{error}");
    thread.join().unwrap();
    let (result, _) = started(vec![vec![Answer::Error("PropertyReadOnly")]]);
    assert!(!result.unwrap_err().is_absence());
}

#[test]
fn a_systemd_that_is_not_on_the_bus_for_the_moment_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let script = vec![
        vec![Answer::Done, Answer::Done, Answer::Absent],
        vec![Answer::Done, Answer::Done, Answer::Done, Answer::Job("done")],
    ];
    let thread = systemd(directory.path(), "bus", script);
    unit(&directory).start("a test", member(), Vec::new()).unwrap();
    assert_eq!(thread.join().unwrap().len(), 7);
}

#[test]
fn ending_a_scope_that_is_gone_is_no_error() {
    for answers in [
        vec![Answer::Error("NoSuchUnit")],
        vec![Answer::Job("done"), Answer::Error("NoSuchUnit")],
        vec![Answer::Job("canceled"), Answer::Done],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let thread = systemd(directory.path(), "private", vec![answers]);
        unit(&directory).stop(Duration::from_secs(20)).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn without_systemd_a_scope_cannot_be_made_and_need_not_be_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut unit = unit(&directory);
    unit.sockets.booted = directory.path().join("missing");
    let text = unit.start("a test", member(), Vec::new()).unwrap_err().to_string();
    assert!(text.contains("systemd does not run here"), "{text}");
    unit.stop(Duration::from_secs(1)).unwrap();
}
