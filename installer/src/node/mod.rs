//! The node's side: reads what a plan is made from, and carries plans out so that a failure leaves what was there.

mod artifacts;
mod error;
mod install;
mod read;
mod uninstall;
mod write;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use error::NodeError;
pub use install::install;
pub use read::facts;
pub use uninstall::uninstall;

use crate::config::{Handler, Runsc};
use crate::cri::{self, CriError, RuntimeVersion};
use crate::distribution::{Distribution, Layout, Method};
use crate::plan::{Change, Plan, Wanted};
use crate::systemd::Systemd;

/// Lies in our directory from before the configuration changes until containerd has read it: an installer that was
/// killed in between must restart although the bytes are right already.
const PENDING: &str = "restart-pending";

/// A node, and what is to be done with it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the host's root directory is.
    pub root: PathBuf,
    /// Who runs containerd.
    pub distribution: Distribution,
    /// The release: `namespace/name`.
    pub owner: String,
    /// The host's directory for the shim and what belongs to it; the installer's alone.
    pub directory: String,
    /// The configuration, where it is not in the distribution's place.
    pub config: Option<String>,
    /// containerd's socket, likewise.
    pub socket: Option<String>,
    /// containerd's state directory, likewise.
    pub state: Option<String>,
    /// The unit that runs containerd, likewise.
    pub unit: Option<String>,
    /// The runsc of the handler that has one.
    pub runsc: Runsc,
    /// How long containerd may take to come back.
    pub patience: Duration,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What was done, in lines for the log.
pub type Report = Vec<String>;

impl Node {
    fn layout(&self) -> Layout {
        self.distribution.layout()
    }

    /// A path of the host as we see it.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn config_path(&self) -> &str {
        self.config.as_deref().unwrap_or(self.layout().config)
    }

    fn socket_path(&self) -> PathBuf {
        self.at(self.socket.as_deref().unwrap_or(self.layout().socket))
    }

    fn pending_path(&self) -> PathBuf {
        self.at(&self.directory).join(PENDING)
    }

    /// Removes the directories of our own that are empty.
    fn remove_directories(&self) -> Result<(), NodeError> {
        for path in ["bin", "etc", ""] {
            write::remove_if_empty(&self.at(&self.directory).join(path))?;
        }
        Ok(())
    }

    fn wanted(&self, handlers: &[Handler], containerd: &RuntimeVersion) -> Wanted {
        Wanted {
            handlers: handlers.to_vec(),
            directory: self.directory.clone(),
            owner: self.owner.clone(),
            named_by_path: !containerd.knows_runtime_path(),
        }
    }

    /// containerd answers, and is one that the shim works with.
    fn check_containerd(&self) -> Result<RuntimeVersion, NodeError> {
        let path = self.socket_path();
        let version = cri::version(&path).map_err(|source| NodeError::NoContainerd {
            distribution: self.distribution,
            source,
        })?;
        if !version.is_supported() {
            return Err(NodeError::Unsupported {
                name: version.name,
                version: version.version,
            });
        }
        Ok(version)
    }

    /// What containerd answers about its handlers.
    fn handlers(&self) -> Result<Vec<String>, NodeError> {
        cri::handlers(&self.socket_path()).map_err(|source| NodeError::NoContainerd {
            distribution: self.distribution,
            source,
        })
    }

    /// The unit to restart and the systemd to ask for it, found before anything is changed.
    fn restarter(&self) -> Result<Option<(Systemd, String)>, NodeError> {
        let units: Vec<String> = match &self.unit {
            Some(unit) => vec![unit.clone()],
            None => self.layout().units.iter().map(|unit| (*unit).to_owned()).collect(),
        };
        if matches!(self.layout().method, Method::Merged { .. }) && self.unit.is_none() {
            return Ok(None);
        }
        let mut systemd = Systemd::connect(&self.root)?;
        let unit = systemd.active_unit(&units)?;
        Ok(Some((systemd, unit)))
    }

    /// Waits until containerd's answer about its handlers is the one that was meant.
    fn wait_for(&self, right: impl Fn(&[String]) -> bool) -> Result<(), NodeError> {
        let begun = Instant::now();
        loop {
            let answer: Result<Vec<String>, CriError> = cri::handlers(&self.socket_path());
            if answer.as_ref().is_ok_and(|names| right(names)) {
                return Ok(());
            }
            if begun.elapsed() > self.patience {
                return Err(match answer {
                    Ok(handlers) => NodeError::OtherHandlers { handlers },
                    Err(source) => NodeError::Silent { source },
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Writes a plan's files; at a failure those that were written get their bytes back.
    fn apply(&self, plan: &Plan) -> Result<(), NodeError> {
        for (number, change) in plan.changes.iter().enumerate() {
            if let Err(error) = self.write(change) {
                return Err(self.after_undoing(&plan.changes[..number], error));
            }
        }
        Ok(())
    }

    /// The error, after the changes were taken back; with what could not be taken back if that failed, too.
    fn after_undoing(&self, changes: &[Change], error: NodeError) -> NodeError {
        for change in changes.iter().rev() {
            let back = Change {
                path: change.path.clone(),
                before: change.after.clone(),
                after: change.before.clone(),
                directory: change.directory,
            };
            if let Err(second) = self.write(&back) {
                return NodeError::NotUndone {
                    path: change.path.clone(),
                    reason: second.to_string(),
                    source: Box::new(error),
                };
            }
        }
        error
    }

    fn write(&self, change: &Change) -> Result<(), NodeError> {
        let path = self.at(&change.path);
        match &change.after {
            Some(text) => write::file(&path, text.as_bytes(), 0o644),
            None => {
                write::remove(&path)?;
                if change.directory {
                    write::remove_if_empty(parent(&path))?;
                }
                Ok(())
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn lines(plan: &Plan) -> Report {
    plan.changes
        .iter()
        .map(|change| match (&change.before, &change.after) {
            (None, _) => format!("made {}", change.path),
            (Some(_), None) => format!("removed {}", change.path),
            (Some(_), Some(_)) => format!("changed {}", change.path),
        })
        .collect()
}
