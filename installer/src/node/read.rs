//! Reads what a plan is made from.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::{Node, NodeError};
use crate::config::{Document, block, glob_matches};
use crate::distribution::Method;
use crate::plan::{Facts, File};

/// The most that a configuration may have.
const LIMIT: u64 = 4 << 20;

/// Reads the configuration and whatever belongs to it.
///
/// # Errors
///
/// A file that is there and cannot be read, or is a symbolic link.
pub fn facts(node: &Node) -> Result<Facts, NodeError> {
    let layout = node.layout();
    let config_path = node.config_path().to_owned();
    let config = file(node, &config_path)?;
    let mut facts = Facts {
        distribution: node.distribution,
        config_path: config_path.clone(),
        config,
        imported: Vec::new(),
        templates: Vec::new(),
        directories: Vec::new(),
    };
    match layout.method {
        Method::Merged { directory } => import(node, &mut facts, &format!("{directory}/*.toml"))?,
        Method::File | Method::Rendered => {
            // A broken configuration is the plan's to refuse.
            let imports = facts.config.as_ref().and_then(|file| {
                let text = block::find(&file.text).map_or_else(|| file.text.clone(), |block| block.without);
                Document::parse(&text).ok()
            });
            for pattern in imports.into_iter().flat_map(|document| document.imports) {
                let directory = config_path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let pattern = if pattern.starts_with('/') {
                    pattern
                } else {
                    format!("{directory}/{pattern}")
                };
                import(node, &mut facts, &pattern)?;
            }
        }
    }
    if layout.method == Method::Rendered {
        let directory = config_path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for name in ["config.toml.tmpl", "config-v3.toml.tmpl"] {
            facts.templates.extend(file(node, &format!("{directory}/{name}"))?);
        }
    }
    Ok(facts)
}

/// Adds the files that an import names, in the order in which containerd reads them: by name.
fn import(node: &Node, facts: &mut Facts, pattern: &str) -> Result<(), NodeError> {
    let Some((directory, name)) = pattern.rsplit_once('/') else {
        return Ok(());
    };
    let path = node.at(directory);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(source) => return Err(NodeError::Read { path, source }),
    };
    facts.directories.push(directory.to_owned());
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| NodeError::Read {
            path: path.clone(),
            source,
        })?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    for found in names.iter().filter(|found| glob_matches(name, found)) {
        facts.imported.extend(file(node, &format!("{directory}/{found}"))?);
    }
    Ok(())
}

/// A file of the node, unless it is not there.
fn file(node: &Node, path: &str) -> Result<Option<File>, NodeError> {
    let place = node.at(path);
    match fs::symlink_metadata(&place) {
        Ok(found) if found.is_symlink() => return Err(NodeError::Link { path: place }),
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NodeError::Read { path: place, source }),
    }
    let text = text(&place).map_err(|source| NodeError::Read { path: place, source })?;
    Ok(Some(File {
        path: path.to_owned(),
        text,
    }))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "longer than any configuration",
        ));
    }
    Ok(text)
}

/// The ids of containers on this node that our shim made, and of sandboxes: its record lies in their bundles.
pub(super) fn containers(node: &Node) -> Result<Vec<String>, NodeError> {
    let state = node.state.as_deref().unwrap_or(node.layout().state);
    let mut found = Vec::new();
    for kind in [
        "io.containerd.runtime.v2.task",
        "io.containerd.sandbox.controller.v1.shim",
    ] {
        for namespace in below(&node.at(state).join(kind))? {
            for bundle in below(&namespace)? {
                if bundle.join("nucleus.json").exists() {
                    found.extend(bundle.file_name().map(|name| name.to_string_lossy().into_owned()));
                }
            }
        }
    }
    Ok(found)
}

fn below(path: &Path) -> Result<Vec<std::path::PathBuf>, NodeError> {
    let read = || {
        fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    };
    match read() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other.map_err(|source| NodeError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
