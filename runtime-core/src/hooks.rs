//! Hooks: stub until the real ones land.
use crate::plan::Hook;
use std::path::Path;
/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// not yet
    #[error("hooks are not there yet")]
    NotYet,
}
/// The state that a hook reads.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct State<'a> {
    pub id: &'a str,
    pub status: &'a str,
    pub pid: i32,
    pub bundle: &'a Path,
    pub annotations: &'a [(String, String)],
}
impl State<'_> {
    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        Vec::new()
    }
}
/// Runs.
pub fn run(_hook: &Hook, _state: &[u8], _cwd: &Path) -> Result<(), Error> {
    Err(Error::NotYet)
}
