//! The node's own layer: a file that only root can have written.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::settings::Layer;
use super::toml;

/// Where the node's configuration is.
pub const PATH: &str = "/etc/nucleus/config.toml";

/// Names another file than [`PATH`], which has to exist then: part of containerd's environment, which shims inherit.
pub const VARIABLE: &str = "NUCLEUS_CONFIG";

/// The only version of the file there is so far.
pub const VERSION: i64 = 1;

/// A file longer than this was never one.
const LIMIT: u64 = 1 << 20;

/// Why the node's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("{operation} the node's configuration {path:?}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the node's configuration {path:?} is {what}; it has to be a file of root's that nobody else can write to")]
    NotTrusted { path: PathBuf, what: &'static str },
    #[error("the node's configuration")]
    Content(#[from] super::Error),
}

/// What the node says; nothing where there is no configuration. Read on each create, so that a change holds from the
/// next container on: it costs a few system calls.
pub fn read() -> Result<Layer, Error> {
    match std::env::var_os(VARIABLE) {
        Some(path) => read_file(Path::new(&path))?.ok_or_else(|| Error::Io {
            operation: "opening",
            path: path.into(),
            source: io::ErrorKind::NotFound.into(),
        }),
        None => Ok(read_file(Path::new(PATH))?.unwrap_or_default()),
    }
}

fn read_file(path: &Path) -> Result<Option<Layer>, Error> {
    let failed = |operation| {
        move |source: io::Error| Error::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("opening")(errno.into())),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("looking at")(errno.into()))?;
    if let Some(what) = distrusted(stat.st_mode, stat.st_uid, stat.st_size) {
        return Err(Error::NotTrusted {
            path: path.to_owned(),
            what,
        });
    }
    let mut text = String::new();
    let read = File::from(fd).take(LIMIT).read_to_string(&mut text);
    read.map_err(failed("reading"))?;
    Ok(Some(parse(&path.display().to_string(), &text)?))
}

/// What is wrong with a file that is to say what containers may do.
pub(crate) fn distrusted(mode: u32, owner: u32, size: i64) -> Option<&'static str> {
    if mode & libc::S_IFMT != libc::S_IFREG {
        Some("not a regular file")
    } else if owner != 0 {
        Some("not owned by root")
    } else if mode & 0o022 != 0 {
        Some("writable for others than its owner")
    } else if size > LIMIT as i64 {
        Some("larger than a mebibyte")
    } else {
        None
    }
}

/// A configuration's text; `place` names it in errors.
pub fn parse(place: &str, text: &str) -> Result<Layer, super::Error> {
    let entries = toml::parse(text).map_err(|source| super::Error::Toml {
        place: place.to_owned(),
        source,
    })?;
    let version = entries.iter().find(|entry| entry.key == "version");
    if version.is_none_or(|entry| entry.value != toml::Value::Number(VERSION)) {
        return Err(super::Error::Version {
            place: place.to_owned(),
            found: version.map_or("none".to_owned(), |entry| format!("{:?}", entry.value)),
        });
    }
    let mut layer = Layer::default();
    for entry in entries.iter().filter(|entry| entry.key != "version") {
        layer.set_entry(place, entry)?;
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_file_of_root_s_alone_is_trusted() {
        assert_eq!(distrusted(libc::S_IFREG | 0o644, 0, 10), None);
        assert_eq!(distrusted(libc::S_IFREG | 0o644, 1000, 10), Some("not owned by root"));
        assert!(distrusted(libc::S_IFREG | 0o664, 0, 10).is_some());
        assert!(distrusted(libc::S_IFREG | 0o602, 0, 10).is_some());
        assert_eq!(distrusted(libc::S_IFIFO | 0o600, 0, 0), Some("not a regular file"));
        assert!(distrusted(libc::S_IFREG | 0o600, 0, 1 << 30).is_some());
    }

    #[test]
    fn a_file_is_read_and_a_missing_one_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert!(read_file(&path).unwrap().is_none());
        std::fs::write(&path, "version = 1\nno_new_privs = true\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = read_file(&path).unwrap_err().to_string();
        assert!(error.contains("nobody else can write to"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(read_file(&path).unwrap().unwrap().no_new_privs, Some(true));
        }
    }
}
