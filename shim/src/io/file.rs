//! Files that output is appended to.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::fifo::kind;

/// Opens the log file at `path`, created with its parents where it is missing: directories 0755, the file 0644,
/// whatever our own umask is. A file that exists keeps its mode.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let failed = |operation, source: io::Error| Error::File {
        operation,
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        create_directories(parent).map_err(|source| failed("create the directory of", source))?;
    }
    // O_NONBLOCK: opening a FIFO must not wait for its reader.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o644);
    let fd = match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(fd) => {
            rustix::fs::fchmod(&fd, mode).map_err(|errno| failed("set the mode of", errno.into()))?;
            fd
        }
        // O_EXCL does not follow a symlink, and an existing file may be one.
        Err(Errno::EXIST) => {
            rustix::fs::open(path, flags | OFlags::CREATE, mode).map_err(|errno| failed("open", errno.into()))?
        }
        Err(errno) => return Err(failed("create", errno.into())),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("look at", errno.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::CharacterDevice => Ok(File::from(fd)),
        other => Err(Error::NotAFile {
            path: path.to_owned(),
            kind: kind(other),
        }),
    }
}

/// Like mkdir -p. The mode does not depend on our umask: who may read the log may look for it.
fn create_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directories(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o755))?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}
