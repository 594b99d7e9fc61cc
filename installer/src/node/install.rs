//! Install: our own files, then the configuration, then the restart, then a look whether containerd knows the handlers.

use std::fs;
use std::path::Path;

use super::artifacts::{self, Before};
use super::{Node, NodeError, Report, lines, read, write};
use crate::config::Handler;
use crate::plan::{self, Plan};
use crate::systemd::Systemd;

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
    let mut report = vec![format!("found {} {}", found.name, found.version)];
    let facts = read::facts(node)?;
    let plan = plan::install(&facts, &node.wanted(handlers, &found))?;
    let mut artifacts = artifacts::wanted(node, bytes, handlers);
    artifacts.retain(|artifact| !write::holds(&node.at(&artifact.path), &artifact.bytes));
    // Only a restart that did not happen leaves this behind.
    let restarts = plan.restart || node.pending_path().exists();
    if node.dry_run {
        let writes = artifacts.iter().map(|artifact| format!("written {}", artifact.path));
        let restart = restarts.then(|| "restarted containerd".to_owned());
        let all = writes.chain(lines(&plan)).chain(restart);
        report.extend(all.map(|line| format!("would have {line}")));
        return Ok(report);
    }
    // Whatever containerd knew before, it has to know afterwards.
    let mut expected = node.handlers()?;
    expected.retain(|name| Handler::ALL.iter().all(|ours| ours.name() != name));
    expected.extend(handlers.iter().map(|handler| handler.name().to_owned()));
    let mut restarter = if restarts { node.restarter()? } else { None };

    let mut before = Vec::new();
    for artifact in &artifacts {
        match artifacts::put(node, artifact) {
            Ok(one) => before.push(one),
            Err(error) => return Err(taken_back(node, &before, error)),
        }
        report.push(format!("wrote {}", artifact.path));
    }
    if let Err(error) = change(node, &plan, &mut restarter, &expected, restarts) {
        let error = undo(node, &plan, &mut restarter, error);
        return Err(taken_back(node, &before, error));
    }
    report.extend(lines(&plan));
    report.push(match restarter {
        Some((_, unit)) => format!("restarted {unit}"),
        None if plan.changes.is_empty() => "the configuration is as it should be: no restart".to_owned(),
        None => "the distribution reads the directory by itself: no restart".to_owned(),
    });
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name()).collect();
    report.push(format!("containerd knows {}", names.join(", ")));
    Ok(report)
}

type Restarter = Option<(Systemd, String)>;

fn change(
    node: &Node,
    plan: &Plan,
    restarter: &mut Restarter,
    expected: &[String],
    restarts: bool,
) -> Result<(), NodeError> {
    if restarts {
        write::file(&node.pending_path(), b"", 0o644)?;
    }
    node.apply(plan)?;
    if let Some((systemd, unit)) = restarter {
        systemd.restart(unit, node.patience)?;
    }
    node.wait_for(|names| expected.iter().all(|name| names.contains(name)))?;
    write::remove(&node.pending_path())
}

/// Puts the old configuration back and lets containerd read it again.
fn undo(node: &Node, plan: &Plan, restarter: &mut Restarter, error: NodeError) -> NodeError {
    let is_written = |path: &str, text: &str| write::holds(&node.at(path), text.as_bytes());
    let mut changes = plan.changes.iter();
    let written = changes.any(|change| {
        change
            .after
            .as_deref()
            .is_some_and(|text| is_written(&change.path, text))
    });
    if !written {
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

/// The error, after our own files were taken back, too.
fn taken_back(node: &Node, before: &[Before], error: NodeError) -> NodeError {
    let back = write::remove(&node.pending_path()).and_then(|()| artifacts::put_back(node, before));
    match back {
        Ok(()) => error,
        Err(second) => NodeError::NotUndone {
            path: node.directory.clone(),
            reason: second.to_string(),
            source: Box::new(error),
        },
    }
}
