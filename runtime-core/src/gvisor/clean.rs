//! What is left of a sandbox whose shim died: files. Its processes are in cgroups, which are cleaned like any
//! container's.

use std::path::{Component, Path};

use super::{Error, file, state};

/// Removes the sandbox's directory, as its record names it; only ever one below ours.
pub fn clean(directory: &Path) -> Result<(), Error> {
    let plain = directory
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || !directory.starts_with("/run/nucleus/gvisor") || directory.components().count() != 6 {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the directory of a sandbox");
        return Err(file("removing", directory)(source));
    }
    state::remove(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_sandbox_s_directory_is_ever_removed() {
        for path in [
            "/",
            "/run/nucleus",
            "/run/nucleus/gvisor",
            "/run/nucleus/gvisor/k8s.io",
            "/etc",
            "/run/nucleus/gvisor/a/b/c",
            "/run/nucleus/gvisor/../x",
        ] {
            assert!(clean(Path::new(path)).is_err(), "{path}");
        }
        clean(Path::new("/run/nucleus/gvisor/nonexistent/sandbox")).unwrap();
    }
}
