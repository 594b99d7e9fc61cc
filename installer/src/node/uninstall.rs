//! Uninstall: the configuration, then the restart, and only when containerd has forgotten the handlers, the binary.
//! The other way round, every pod of the class would lose what it needs to be cleaned up.

use super::{Node, NodeError, Report, artifacts, lines, read, write};
use crate::config::{Handler, block};
use crate::plan;

/// Gives the node's files back the bytes that they had before [`super::install`], and takes the shim away.
///
/// # Errors
///
/// [`NodeError::InUse`] while containers of the shim are there, unless `force`; otherwise what went wrong.
pub fn uninstall(node: &Node, force: bool) -> Result<Report, NodeError> {
    let mut report = Vec::new();
    let running = read::containers(node)?;
    if let Some(example) = running.first()
        && !force
    {
        return Err(NodeError::InUse {
            count: running.len(),
            example: example.clone(),
        });
    }
    let facts = read::facts(node)?;
    let files = facts.config.iter().chain(&facts.imported).chain(&facts.templates);
    let mut owners = files
        .filter_map(|file| block::find(&file.text))
        .map(|block| block.owner);
    if let Some(owner) = owners.find(|owner| *owner != node.owner) {
        // The shim is theirs as well.
        report.push(format!("this node belongs to the release {owner}: nothing to do"));
        return Ok(report);
    }
    let plan = plan::uninstall(&facts, &node.owner);
    let pending = node.pending_path().exists();
    if node.dry_run {
        report.extend(lines(&plan).into_iter().map(|line| format!("would have {line}")));
        return Ok(report);
    }
    if !plan.changes.is_empty() || pending {
        let mut restarter = node.restarter()?;
        write::file(&node.pending_path(), b"", 0o644)?;
        node.apply(&plan)?;
        report.extend(lines(&plan));
        if let Some((systemd, unit)) = &mut restarter {
            systemd.restart(unit, node.patience)?;
            report.push(format!("restarted {unit}"));
        }
        let ours = |name: &String| {
            let mut before = plan.changes.iter().filter_map(|change| change.before.as_deref());
            Handler::ALL.iter().any(|handler| handler.name() == name)
                && before.any(|text| text.contains(&format!("runtimes.{name}]")))
        };
        node.wait_for(|names| !names.iter().any(ours))?;
        report.push("containerd has forgotten the handlers".to_owned());
        write::remove(&node.pending_path())?;
    }
    for path in artifacts::paths(node) {
        if node.at(&path).exists() {
            write::remove(&node.at(&path))?;
            report.push(format!("removed {path}"));
        }
    }
    node.remove_directories()?;
    if report.is_empty() {
        report.push("nothing of this release is here".to_owned());
    }
    Ok(report)
}
