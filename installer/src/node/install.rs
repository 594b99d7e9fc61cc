//! Install: the binary, then the configuration, then the restart, then a look whether containerd knows the handlers.

use std::fs;
use std::io;
use std::path::Path;

use super::{Node, NodeError, Report, lines, read, write};
use crate::config::Handler;
use crate::plan::{self, Plan};

/// Makes containerd on the node know the handlers, and puts the shim there. Done again it changes nothing.
///
/// # Errors
///
/// Whatever stands against it; the node is then as it was, unless the error says otherwise.
pub fn install(node: &Node, shim: &Path, handlers: &[Handler]) -> Result<Report, NodeError> {
    let bytes = fs::read(shim).map_err(|source| NodeError::Read {
        path: shim.to_owned(),
        source,
    })?;
    let found = node.check_containerd()?;
    let mut report = vec![format!("found {found}")];
    let facts = read::facts(node)?;
    let plan = plan::install(&facts, &node.wanted(handlers))?;
    let target = node.at(&node.shim_path());
    let new_shim = !write::holds(&target, &bytes);
    // Only a restart that did not happen leaves this behind.
    let pending = node.pending_path().exists();
    let restarts = plan.restart || pending;
    if node.dry_run {
        report.extend(lines(&plan).into_iter().map(|line| format!("would have {line}")));
        report.extend(new_shim.then(|| format!("would have written {}", node.shim_path())));
        report.extend(restarts.then(|| "would have restarted containerd".to_owned()));
        return Ok(report);
    }
    let mut restarter = if restarts { node.restarter()? } else { None };

    let before = match fs::read(&target) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(NodeError::Read { path: target, source }),
    };
    if new_shim {
        write::file(&target, &bytes, 0o755)?;
        report.push(format!("wrote {}", node.shim_path()));
    }
    let done = change(node, &plan, &mut restarter, handlers, restarts);
    if let Err(error) = done {
        let error = undo(node, &plan, &mut restarter, error);
        return Err(match put_back(node, &target, new_shim, before) {
            Ok(()) => error,
            Err(second) => NodeError::NotUndone {
                path: node.shim_path(),
                reason: second.to_string(),
                source: Box::new(error),
            },
        });
    }
    report.extend(lines(&plan));
    match restarter {
        Some((_, unit)) => report.push(format!("restarted {unit}")),
        None if plan.changes.is_empty() => report.push("the configuration is as it should be: no restart".to_owned()),
        None => report.push("the distribution reads the directory by itself: no restart".to_owned()),
    }
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name()).collect();
    report.push(format!("containerd knows {}", names.join(", ")));
    Ok(report)
}

type Restarter = Option<(crate::systemd::Systemd, String)>;

fn change(
    node: &Node,
    plan: &Plan,
    restarter: &mut Restarter,
    handlers: &[Handler],
    restarts: bool,
) -> Result<(), NodeError> {
    if restarts {
        write::file(&node.pending_path(), b"", 0o644)?;
    }
    node.apply(plan)?;
    if let Some((systemd, unit)) = restarter {
        systemd.restart(unit, node.patience)?;
    }
    let known = |names: &[String]| {
        let mut wanted = handlers.iter();
        wanted.all(|handler| names.iter().any(|name| name == handler.name()))
    };
    node.wait_for(known)?;
    write::remove(&node.pending_path())
}

/// Puts the old configuration back and lets containerd read it again.
fn undo(node: &Node, plan: &Plan, restarter: &mut Restarter, error: NodeError) -> NodeError {
    let was_written = plan.changes.iter().any(|change| {
        change
            .after
            .as_deref()
            .is_some_and(|text| write::holds(&node.at(&change.path), text.as_bytes()))
    });
    if !was_written {
        return error;
    }
    let error = node.after_undoing(&plan.changes, error);
    if let Some((systemd, unit)) = restarter
        && let Err(second) = systemd.restart(unit, node.patience)
    {
        return NodeError::NotUndone {
            path: unit.clone(),
            reason: second.to_string(),
            source: Box::new(error),
        };
    }
    error
}

fn put_back(node: &Node, target: &Path, new_shim: bool, before: Option<Vec<u8>>) -> Result<(), NodeError> {
    write::remove(&node.pending_path())?;
    if !new_shim {
        return Ok(());
    }
    match before {
        Some(bytes) => write::file(target, &bytes, 0o755),
        None => {
            write::remove(target)?;
            write::remove_if_empty(super::parent(target))
        }
    }
}
