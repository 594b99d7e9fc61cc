//! Durable writes: a temporary file beside, fsync, rename, fsync of the directory. Whoever reads sees the old file or
//! the new one; a program that runs keeps its own (no `Text file busy`).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::{NodeError, parent};

/// Writes a file; one that is there keeps its mode and owner, and a missing directory is made.
pub(super) fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), NodeError> {
    let directory = parent(path);
    fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that no import's `*.toml` reads while it is half-written.
    let temporary = directory.join(format!(".{name}.nucleus-tmp"));
    let result = replace(path, &temporary, bytes, mode).map_err(failed("write", path));
    if result.is_err() {
        // Not there is as good.
        fs::remove_file(&temporary).ok();
    }
    result
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let existing = match fs::symlink_metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mode = existing.as_ref().map_or(mode, |found| found.mode() & 0o7777);
    // What a killed installer left there is nobody's.
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    file.write_all(bytes)?;
    if let Some(found) = existing {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (found.uid(), found.gid()) {
            fchown(&file, Some(found.uid()), Some(found.gid()))?;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync(parent(path))
}

/// Removes a file; one that is gone already is as good.
pub(super) fn remove(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sync(parent(path))).map_err(failed("remove", path)),
    }
}

/// Removes a directory unless somebody has put something into it.
pub(super) fn remove_if_empty(directory: &Path) -> Result<(), NodeError> {
    match fs::remove_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                // A directory that is mounted into our container is busy, and where the container's root is read-only
                // the kernel looks at that first: it stays, empty.
                io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        other => other.map_err(failed("remove the directory", directory)),
    }
}

/// Whether a file has these very bytes.
pub(super) fn holds(path: &Path, bytes: &[u8]) -> bool {
    let same_size = fs::metadata(path).is_ok_and(|found| found.len() == bytes.len() as u64);
    same_size && fs::read(path).is_ok_and(|found| found == bytes)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NodeError {
    let path = path.to_owned();
    move |source| NodeError::Write {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::{file, holds, remove, remove_if_empty};

    #[test]
    fn a_file_keeps_its_mode_and_no_temporary_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        fs::write(directory.path().join(".config.toml.nucleus-tmp"), "half").unwrap();
        file(&path, b"new", 0o644).unwrap();
        assert!(holds(&path, b"new"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_program_that_runs_can_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
        let replaced = file(&path, b"new", 0o755);
        child.kill().unwrap();
        child.wait().unwrap();
        replaced.unwrap();
        assert!(holds(&path, b"new"));
    }

    #[test]
    fn a_directory_with_something_in_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf.d/nucleus.toml");
        file(&path, b"x", 0o644).unwrap();
        fs::write(path.with_file_name("other.toml"), "").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        remove_if_empty(path.parent().unwrap()).unwrap();
        assert!(path.with_file_name("other.toml").exists());
    }
}
