//! Restarts a unit of the host's systemd, by its own socket: no program of the host is run and none of its namespaces
//! entered. SIGHUP would end containerd; a restart leaves shims and their containers alone.

mod bus;
mod message;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bus::Bus;
use message::Value;

/// systemd's own socket, which no bus daemon and no AppArmor rule about buses stands in front of; then the system's
/// bus.
const SOCKETS: [(&str, bool); 2] = [("run/systemd/private", false), ("run/dbus/system_bus_socket", true)];
/// Looks at a job this often.
const PAUSE: Duration = Duration::from_millis(100);

const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// Why a unit was not restarted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdError {
    /// No socket, or nobody behind it.
    #[error("connect to systemd at {}", .path.display())]
    Connect {
        /// The last socket that was tried.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("call systemd's {method}")]
    Call {
        /// The method.
        method: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd said no.
    #[error("systemd refuses {method} of {unit}: {message}")]
    Refused {
        /// The method.
        method: &'static str,
        /// The unit.
        unit: String,
        /// systemd's words.
        message: String,
    },
    /// An answer of another form than documented.
    #[error("systemd's answer to {method} cannot be understood")]
    Answer {
        /// The method.
        method: &'static str,
    },
    /// None of the units that could run containerd runs.
    #[error("none of these units is active: {0}; set `installer.unit` to the one that runs containerd here")]
    NoUnit(String),
    /// The unit did not come back.
    #[error("{unit} is {state} after its restart; `journalctl -u {unit}` says why")]
    NotActive {
        /// The unit.
        unit: String,
        /// Its state.
        state: String,
    },
}

/// A connection to systemd.
pub struct Systemd {
    bus: Bus,
}

impl Systemd {
    /// Connects to the systemd whose /run is below `root`.
    pub fn connect(root: &Path) -> Result<Self, SystemdError> {
        let mut failed = None;
        for (socket, is_bus) in SOCKETS {
            let path = root.join(socket);
            match Bus::connect(&path, is_bus) {
                Ok(bus) => return Ok(Self { bus }),
                // The first reason is the one that matters, unless the socket was just not there.
                Err(source) if failed.is_none() || source.kind() != io::ErrorKind::NotFound => {
                    failed = Some(SystemdError::Connect { path, source });
                }
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or(SystemdError::Answer { method: "connect" }))
    }

    /// The first of these units that is active.
    pub fn active_unit(&mut self, units: &[String]) -> Result<String, SystemdError> {
        for unit in units {
            match self.unit_path(unit) {
                Ok(path) if self.state(unit, &path)? == "active" => return Ok(unit.clone()),
                // A unit that is not loaded does not run.
                Ok(_) | Err(SystemdError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SystemdError::NoUnit(units.join(", ")))
    }

    /// Restarts a unit, waits for the job's end and looks whether the unit is active then.
    pub fn restart(&mut self, unit: &str, patience: Duration) -> Result<(), SystemdError> {
        const METHOD: &str = "RestartUnit";
        let arguments = [unit, "replace"];
        self.call(MANAGER, MANAGER_INTERFACE, METHOD, unit, &arguments)?;
        let path = self.unit_path(unit)?;
        let begun = Instant::now();
        loop {
            let waits = self.has_job(unit, &path)?;
            let state = self.state(unit, &path)?;
            // Without a job `activating` is a unit that waits before it tries again by itself.
            match state.as_str() {
                "active" if !waits => return Ok(()),
                "failed" | "inactive" if !waits => {
                    return Err(SystemdError::NotActive {
                        unit: unit.to_owned(),
                        state,
                    });
                }
                _ if begun.elapsed() > patience => {
                    return Err(SystemdError::NotActive {
                        unit: unit.to_owned(),
                        state: format!("{state} after {} s", patience.as_secs()),
                    });
                }
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    fn unit_path(&mut self, unit: &str) -> Result<String, SystemdError> {
        const METHOD: &str = "GetUnit";
        match self.call(MANAGER, MANAGER_INTERFACE, METHOD, unit, &[unit])? {
            Value::Text(path) => Ok(path),
            _ => Err(SystemdError::Answer { method: METHOD }),
        }
    }

    fn state(&mut self, unit: &str, path: &str) -> Result<String, SystemdError> {
        match self.property(unit, path, "ActiveState")? {
            Value::Text(state) => Ok(state),
            _ => Err(SystemdError::Answer { method: "ActiveState" }),
        }
    }

    fn has_job(&mut self, unit: &str, path: &str) -> Result<bool, SystemdError> {
        match self.property(unit, path, "Job")? {
            Value::Number(id) => Ok(id != 0),
            _ => Err(SystemdError::Answer { method: "Job" }),
        }
    }

    fn property(&mut self, unit: &str, path: &str, name: &'static str) -> Result<Value, SystemdError> {
        self.call(path, PROPERTIES_INTERFACE, "Get", unit, &[UNIT_INTERFACE, name])
    }

    fn call(
        &mut self,
        path: &str,
        interface: &str,
        method: &'static str,
        unit: &str,
        arguments: &[&str],
    ) -> Result<Value, SystemdError> {
        let reply = self
            .bus
            .call(path, interface, method, arguments)
            .map_err(|source| SystemdError::Call { method, source })?;
        reply.map_err(|message| SystemdError::Refused {
            method,
            unit: unit.to_owned(),
            message,
        })
    }
}
