//! Running a container's hooks at their moments, with its state on their stdin.

use std::path::Path;

use super::Error;
use crate::{hooks, plan};

/// Runs every poststop hook, whatever the others did; returns the failures.
pub(crate) fn poststop(hooks: &[plan::Hook], bundle: &Path, state: impl FnOnce() -> Vec<u8>) -> Vec<hooks::Error> {
    if hooks.is_empty() {
        return Vec::new();
    }
    let state = state();
    hooks
        .iter()
        .filter_map(|hook| hooks::run(hook, &state, bundle).err())
        .collect()
}

pub(crate) fn state_of(container: &plan::Container, status: &str, pid: i32) -> Vec<u8> {
    hooks::State {
        id: &container.id,
        status,
        pid,
        bundle: &container.bundle,
        annotations: &container.annotations,
    }
    .to_json()
}

/// Runs `hooks` one after the other, in `cwd`, with the container's state on their stdin; the first failure ends it.
pub(crate) fn run_hooks<'a>(
    hooks: impl Iterator<Item = &'a plan::Hook>,
    container: &plan::Container,
    status: &str,
    pid: i32,
    cwd: &Path,
) -> Result<(), Error> {
    let mut state = None;
    for hook in hooks {
        let state = state.get_or_insert_with(|| state_of(container, status, pid));
        hooks::run(hook, state, cwd)?;
    }
    Ok(())
}
