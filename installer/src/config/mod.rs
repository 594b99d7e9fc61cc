//! containerd's configuration, as text that somebody else owns: what it says, and our block in it. Pure.

pub mod block;
mod document;
mod glob;
mod handler;

pub use block::Block;
pub use document::{Document, DocumentError, Version};
pub use glob::matches as glob_matches;
pub use handler::{Handler, Runsc, UnknownHandler, shim_path};
