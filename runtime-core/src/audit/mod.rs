//! The audit trail: what was decided for which container, one JSON object a line.
//!
//! Each event is one write to a file that is opened for it alone, so that the node may rotate the file whenever it
//! likes, or one datagram to the journal. Nothing is kept in memory, and nothing is lost by a shim that is killed.

mod journal;
mod time;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde_json::Value;

use crate::policy::Audit;

/// The layout of an event; it changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// What happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event<'a> {
    /// `create`, `exec` or `mounts`.
    pub event: &'static str,
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The pod, by what its containers share a shim under.
    pub group: &'a str,
    /// The container.
    pub container: &'a str,
    /// The process within it, of an exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<&'a str>,
    /// What came of it.
    pub decision: Decision,
    /// The setting that decided, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<&'static str>,
    /// Why, where it was not simply allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Decision {
    /// It goes on.
    Allowed,
    /// By the policy, or since the spec asks for what cannot be.
    Refused,
    /// It was allowed, and could not be done.
    Failed,
    /// It goes on, and is not as it was meant.
    Differs,
}

/// Why an event could not be written. What it was to tell is not done then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("audit: {operation} {path:?}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("audit: {path:?} is {what}; it has to be a file of root's that nobody else can write to")]
    NotTrusted { path: PathBuf, what: &'static str },
    #[error("audit: sending to the journal at {path:?}")]
    Journal { path: &'static str, source: io::Error },
}

/// Writes `event` to where the policy says, if it says so.
pub fn write(sink: &Audit, event: &Event<'_>) -> Result<(), Error> {
    match sink {
        Audit::None => Ok(()),
        Audit::Journal => journal::send(&line(event, SystemTime::now()), event.decision),
        Audit::File(path) => append(Path::new(path), &line(event, SystemTime::now())),
    }
}

/// One line, without its end.
fn line(event: &Event<'_>, now: SystemTime) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        schema: u32,
        time: String,
        #[serde(flatten)]
        event: &'a Event<'a>,
    }
    let line = Line {
        schema: SCHEMA,
        time: time::utc(now),
        event,
    };
    // Strings, numbers and maps of strings: nothing that JSON could not say.
    serde_json::to_string(&line).unwrap_or_default()
}

fn append(path: &Path, line: &str) -> Result<(), Error> {
    let failed = |operation| {
        move |source: io::Error| Error::File {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| failed("opening")(errno.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("looking at")(errno.into()))?;
    let what = if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        Some("not a regular file")
    } else if stat.st_uid != 0 {
        Some("not owned by root")
    } else if stat.st_mode & 0o022 != 0 {
        Some("writable for others than its owner")
    } else {
        None
    };
    if let Some(what) = what {
        return Err(Error::NotTrusted {
            path: path.to_owned(),
            what,
        });
    }
    // One write: lines of several shims stay whole.
    File::from(fd)
        .write_all(format!("{line}\n").as_bytes())
        .map_err(failed("writing to"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event() -> Event<'static> {
        Event {
            event: "create",
            namespace: "k8s.io",
            group: "pod",
            container: "c1",
            process: None,
            decision: Decision::Refused,
            control: Some("no_new_privs"),
            reason: Some("a \"reason\"\nof two lines".into()),
            detail: None,
        }
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_schema_and_time() {
        let line = line(
            &event(),
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_771_234_567_089),
        );
        assert_eq!(
            line,
            r#"{"schema":1,"time":"2026-02-16T09:36:07.089Z","event":"create","namespace":"k8s.io","group":"pod","#
                .to_owned()
                + r#""container":"c1","decision":"refused","control":"no_new_privs","reason":"a \"reason\"\nof two lines"}"#
        );
    }

    #[test]
    fn lines_are_appended_to_a_file_of_root_s_alone() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let sink = Audit::File(path.display().to_string());
        write(&sink, &event()).unwrap();
        write(&sink, &event()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = write(&sink, &event()).unwrap_err().to_string();
        assert!(error.contains("nobody else can write to"), "{error}");
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(write(&Audit::File(link.display().to_string()), &event()).is_err());
        write(&Audit::None, &event()).unwrap();
    }
}
