//! The systemd driver: the container's cgroup is a transient scope of systemd's, made and ended over D-Bus.
//!
//! By hand rather than with `zbus`: six calls, each on a connection that is closed after it (figures in
//! docs/architecture.md).

mod connection;
mod error;
mod message;
mod name;
pub(super) mod properties;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use connection::{Connection, Sockets};
pub use error::Error;
pub(super) use message::Value;
use message::{Property, Writer};
pub(crate) use name::is_systemd;
pub(super) use name::{Scope, slice_path};

/// How long systemd may take for one operation: on a busy node it executes itself anew for half a minute. Whoever asked
/// us is more patient than that: the kubelet waits two minutes.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it may be away, while it executes itself anew.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a scope that we asked for may take to hold our process, where systemd executed itself anew behind our
/// request.
const SETTLE: Duration = Duration::from_secs(5);

/// A container's scope.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    scope: Scope,
    sockets: Sockets,
    /// Where processes say in which cgroup they are.
    processes: PathBuf,
}

impl Unit {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            sockets: Sockets::default(),
            processes: "/proc".into(),
        }
    }

    /// Makes the scope around process `member`; there is no other way to make one.
    pub fn start(&self, description: &str, member: i32, limits: Vec<Property>) -> Result<(), Error> {
        let unit = &self.scope.unit;
        let mut properties = properties::of_scope(&self.scope.slice, description, member.unsigned_abs());
        properties.extend(limits);
        let deadline = Instant::now() + LIMIT;
        let mut refused: Option<Instant> = None;
        self.with_manager(deadline, |manager, again| {
            loop {
                if again && self.holds(member) {
                    // The connection broke behind our request, not before it.
                    return Ok(());
                }
                let mut body = Writer::default();
                body.text(unit);
                body.text("fail");
                body.properties(&properties);
                body.no_structures();
                match manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, body) {
                    Err(Error::Untold { .. }) if self.holds(member) => return Ok(()),
                    Err(error) if error.is("UnitExists") => match refused {
                        // One that failed keeps its name until somebody asks for its end.
                        None => refused = Some(Instant::now()),
                        // And this one may be what we asked for before the connection broke: its job is still to come.
                        Some(first) if again && first.elapsed() < SETTLE => std::thread::sleep(PAUSE),
                        Some(_) => return Err(Error::Exists { unit: unit.clone() }),
                    },
                    result => return result,
                }
                reset_failed(manager, unit)?;
            }
        })
    }

    /// Tells systemd of changed limits, so that it does not take them back.
    pub fn update(&self, limits: &[Property]) -> Result<(), Error> {
        if limits.is_empty() {
            return Ok(());
        }
        let unit = &self.scope.unit;
        self.with_manager(Instant::now() + LIMIT, |manager, _| {
            let mut body = Writer::default();
            body.text(unit);
            // Gone with the next boot.
            body.bool(true);
            body.properties(limits);
            manager.call("SetUnitProperties", "sba(sv)", unit, body).map(drop)
        })
    }

    /// Ends the scope; one that systemd does not know is ended.
    pub fn stop(&self, limit: Duration) -> Result<(), Error> {
        let unit = &self.scope.unit;
        let stopped = self.with_manager(Instant::now() + limit, |manager, _| {
            let mut body = Writer::default();
            body.text(unit);
            body.text("replace");
            match manager.job("StopUnit", "ss", unit, body) {
                Err(error) if error.is("NoSuchUnit") => Ok(()),
                // A scope that ended by itself meanwhile takes its job with it.
                Err(Error::Job { .. } | Error::Untold { .. }) | Ok(()) => reset_failed(manager, unit),
                Err(error) => Err(error),
            }
        });
        match stopped {
            // There is nobody who could have a scope.
            Err(Error::NotBooted(_)) => Ok(()),
            result => result,
        }
    }

    /// Whether `member` is in the scope.
    fn holds(&self, member: i32) -> bool {
        let file = self.processes.join(format!("{member}/cgroup"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let end = format!("/{}", self.scope.unit);
        text.lines().any(|line| line.ends_with(&end))
    }

    /// Does `work` on a connection; if it breaks, on another, as long as there is time. `work` is told whether it is
    /// done again.
    fn with_manager(
        &self,
        deadline: Instant,
        mut work: impl FnMut(&mut Connection, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.sockets.booted.exists() {
            return Err(Error::NotBooted(self.sockets.booted.display().to_string()));
        }
        let mut again = false;
        loop {
            let done = Connection::open(&self.sockets, deadline).and_then(|mut manager| work(&mut manager, again));
            match done {
                Err(error) if error.is_broken() && Instant::now() + PAUSE < deadline => {
                    again = true;
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }
}

impl Connection {
    /// Calls a method that starts a job, and waits for the job's end.
    fn job(&mut self, member: &'static str, signature: &str, unit: &str, body: Writer) -> Result<(), Error> {
        let answer = self.call(member, signature, unit, body)?;
        let job = answer.body().text().map_err(|fault| Error::Malformed {
            socket: "/run/systemd/private".into(),
            fault,
        })?;
        let unit = unit.to_owned();
        match self.await_job(&job, &unit)? {
            Some(result) if result == "done" => Ok(()),
            Some(result) => Err(Error::Job { job, unit, result }),
            None => Err(Error::Untold { job, unit }),
        }
    }
}

/// Lets go of a unit that failed; one that did not, or is gone, is no error.
fn reset_failed(manager: &mut Connection, unit: &str) -> Result<(), Error> {
    let mut body = Writer::default();
    body.text(unit);
    match manager.call("ResetFailedUnit", "s", unit, body) {
        Err(error @ Error::Method { .. }) if error.is("NoSuchUnit") => Ok(()),
        result => result.map(drop),
    }
}
