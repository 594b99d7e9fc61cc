//! Files of the node's that a policy names: only root can have written them, and their content is pinned. One way for
//! all of them, whatever they hold.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::node;
use super::pins::{Directory, Pins};

/// A file longer than this was never one of them.
const LIMIT: u64 = 1 << 20;

/// Why there is no file of that name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "{table}.profile: {name:?} is not in {table}.pinned; the node's configuration or the handler's options have \
         to pin it"
    )]
    NotPinned { table: &'static str, name: String },
    #[error("{table}.profile: {operation} {path:?}")]
    Io {
        table: &'static str,
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{table}.profile: {path:?} is {what}; it has to be a file of root's that nobody else can write to")]
    NotTrusted {
        table: &'static str,
        path: PathBuf,
        what: &'static str,
    },
    #[error("{table}.profile: {path:?} has the SHA-256 {found}, and {expected} is pinned")]
    Digest {
        table: &'static str,
        path: PathBuf,
        found: String,
        expected: String,
    },
}

/// Where the files are that `<table>.profile` names.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The settings' table.
    pub table: &'static str,
    /// `<table>.directory`.
    pub directory: &'a Directory,
    /// `<table>.pinned`.
    pub pins: &'a Pins,
    /// What the files' names end with.
    pub extension: &'static str,
}

/// A file that may be believed: what was hashed is what is here.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Content {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Place<'_> {
    /// The file that is called `name`, read anew.
    ///
    /// # Errors
    /// A name that nothing is pinned for, a file that others could have written, or with another content than the
    /// pinned one.
    pub fn read(&self, name: &str) -> Result<Content, Error> {
        let table = self.table;
        let expected = self.pins.0.get(name).ok_or_else(|| Error::NotPinned {
            table,
            name: name.to_owned(),
        })?;
        let path = Path::new(&self.directory.0).join(format!("{name}.{}", self.extension));
        let failed = |operation| {
            let path = path.clone();
            move |source: io::Error| Error::Io {
                table,
                operation,
                path,
                source,
            }
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed("opening")(errno.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("looking at")(errno.into()))?;
        if let Some(what) = node::distrusted(stat.st_mode, stat.st_uid, stat.st_size) {
            return Err(Error::NotTrusted { table, path, what });
        }
        let mut bytes = Vec::new();
        let read = File::from(fd).take(LIMIT).read_to_end(&mut bytes);
        read.map_err(failed("reading"))?;
        let found: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if found == *expected {
            return Ok(Content { path, bytes });
        }
        Err(Error::Digest {
            table,
            path,
            found,
            expected: expected.clone(),
        })
    }
}
