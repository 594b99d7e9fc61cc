//! Our own files on the node: the shim and the policies of handlers.

use std::fs;
use std::io;

use super::{Node, NodeError, write};
use crate::config::{Handler, shim_path};

/// A file of ours.
pub(super) struct Artifact {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    mode: u32,
}

/// What was in a file's place; none where there was no file.
pub(super) struct Before {
    path: String,
    bytes: Option<Vec<u8>>,
}

/// What belongs on the node for these handlers.
pub(super) fn wanted(node: &Node, shim: Vec<u8>, handlers: &[Handler]) -> Vec<Artifact> {
    let shim = Artifact {
        path: shim_path(&node.directory),
        bytes: shim,
        mode: 0o755,
    };
    let policies = handlers.iter().filter_map(|handler| {
        Some(Artifact {
            path: handler.policy_path(&node.directory),
            bytes: handler.policy(&node.runsc)?.into_bytes(),
            mode: 0o644,
        })
    });
    std::iter::once(shim).chain(policies).collect()
}

/// Where any version has put a file of ours.
pub(super) fn paths(node: &Node) -> Vec<String> {
    let policies = Handler::ALL.iter().map(|handler| handler.policy_path(&node.directory));
    std::iter::once(shim_path(&node.directory)).chain(policies).collect()
}

/// Writes a file unless it has these bytes; gives back what was there.
pub(super) fn put(node: &Node, artifact: &Artifact) -> Result<Before, NodeError> {
    let place = node.at(&artifact.path);
    let bytes = match fs::read(&place) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(NodeError::Read { path: place, source }),
    };
    write::file(&place, &artifact.bytes, artifact.mode)?;
    Ok(Before {
        path: artifact.path.clone(),
        bytes,
    })
}

/// Puts back what was there.
pub(super) fn put_back(node: &Node, before: &[Before]) -> Result<(), NodeError> {
    for one in before.iter().rev() {
        let place = node.at(&one.path);
        match &one.bytes {
            Some(bytes) => write::file(&place, bytes, 0o755)?,
            None => write::remove(&place)?,
        }
    }
    node.remove_directories()
}
