//! The OCI bundle: config.json, read and checked.

mod json;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

/// An OCI bundle directory and its parsed config.json.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's directory, absolute.
    pub dir: PathBuf,
    /// What config.json says. `root`, `process` and `linux` are there.
    pub spec: Spec,
}

/// Why a bundle cannot be used. Each variant names the directory or the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The bundle's directory is not given as an absolute path without `..`.
    #[error("bundle {} is not an absolute path without `..`", dir.display())]
    Path { dir: PathBuf },
    /// An operation on the directory or on config.json failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A symbolic link, a FIFO, a device or a directory stands where the file should be.
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// A size limit keeps a shim's memory bounded.
    #[error("{} has {size} bytes, and at most {SIZE_LIMIT} are allowed", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    /// The file is not UTF-8, which JSON has to be.
    #[error("{} is not UTF-8 text", path.display())]
    Encoding { path: PathBuf, source: std::str::Utf8Error },
    /// The file is not JSON, or a field has a wrong type or an unknown value.
    #[error("{}: {field}{}", path.display(), if field.is_empty() { "not an OCI spec" } else { " is not as the OCI \
        spec wants it" })]
    Json {
        path: PathBuf,
        field: String,
        source: serde_json::Error,
    },
    /// A field without which there is no container on Linux.
    #[error("{}: `{field}` is missing", path.display())]
    Missing { path: PathBuf, field: &'static str },
    /// The spec follows a version that this runtime does not know.
    #[error("{}: ociVersion {version:?} is not supported, only 1.x is", path.display())]
    Version { path: PathBuf, version: String },
    /// The document of an exec's process is not one.
    #[error("the process to execute: {field}{}", if field.is_empty() { "not an OCI process" } else { " is not as the \
        OCI spec wants it" })]
    Process { field: String, source: serde_json::Error },
}

/// Name of the spec's file in the bundle directory.
pub const FILE_NAME: &str = "config.json";

/// Bytes of the largest config.json that is read: more than any that execve(2)'s own limit on arguments and environment
/// leaves useful.
pub const SIZE_LIMIT: u64 = 16 << 20;

impl Bundle {
    /// Reads `dir`/config.json. Neither the directory itself nor the file may be a symbolic link; unknown properties
    /// are ignored, as the OCI spec demands; unknown values are errors.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if !dir.is_absolute() || dir.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Path { dir: dir.into() });
        }
        let text = read(dir, &dir.join(FILE_NAME))?;
        Self::parse(dir, &text)
    }

    /// The bundle at `dir` whose config.json has this text. Looks at no file.
    pub fn parse(dir: &Path, text: &str) -> Result<Self, Error> {
        let path = dir.join(FILE_NAME);
        let spec = json::spec(text).map_err(|(field, source)| Error::Json {
            path: path.clone(),
            field,
            source,
        })?;
        check(&spec, &path)?;
        Ok(Self { dir: dir.into(), spec })
    }
}

/// Reads the JSON of an OCI process, as an exec request carries it.
pub fn process(json: &[u8]) -> Result<Process, Error> {
    json::process(json).map_err(|(field, source)| Error::Process { field, source })
}

fn read(dir: &Path, path: &Path) -> Result<String, Error> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = open(dir, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(|error| Error::Io {
        operation: "open bundle",
        path: dir.into(),
        source: error.into(),
    })?;
    // NONBLOCK: a FIFO must not hold the shim up until somebody writes to it.
    let file = match openat(&fd, FILE_NAME, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::LOOP) => return Err(Error::NotAFile { path: path.into() }),
        Err(error) => {
            return Err(Error::Io {
                operation: "open",
                path: path.into(),
                source: error.into(),
            });
        }
    };
    let io = |operation| {
        move |source| Error::Io {
            operation,
            path: path.into(),
            source,
        }
    };
    let metadata = file.metadata().map_err(io("stat"))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    if metadata.len() > SIZE_LIMIT {
        return Err(Error::TooLarge {
            path: path.into(),
            size: metadata.len(),
        });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(SIZE_LIMIT).read_to_end(&mut bytes).map_err(io("read"))?;
    String::from_utf8(bytes).map_err(|error| Error::Encoding {
        path: path.into(),
        source: error.utf8_error(),
    })
}

fn check(spec: &Spec, path: &Path) -> Result<(), Error> {
    let missing = |field| Error::Missing {
        path: path.into(),
        field,
    };
    let version = spec.version().as_str();
    if version.is_empty() {
        return Err(missing("ociVersion"));
    }
    if !version
        .strip_prefix("1.")
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    {
        return Err(Error::Version {
            path: path.into(),
            version: version.into(),
        });
    }
    let present = [
        ("root", spec.root().is_some()),
        ("process", spec.process().is_some()),
        ("linux", spec.linux().is_some()),
    ];
    present
        .into_iter()
        .try_for_each(|(field, is_there)| if is_there { Ok(()) } else { Err(missing(field)) })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::symlink;

    use super::*;

    const MINIMAL: &str = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}]}}"#;

    fn open_text(text: &str) -> Result<Bundle, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        Bundle::open(dir.path())
    }

    /// What a person reads: the error and its sources.
    fn told(error: &Error) -> String {
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_minimal_bundle_is_read() {
        let bundle = open_text(MINIMAL).unwrap();
        assert!(bundle.dir.is_absolute());
        assert_eq!(bundle.spec.version(), "1.0.2");
    }

    #[test]
    fn what_is_wrong_in_config_json_is_told_by_file_field_and_place() {
        let cases = [
            (
                "",
                "config.json: not an OCI spec: EOF while parsing a value at line 1 column 0",
            ),
            (
                &MINIMAL[..90],
                "config.json: process.user is not as the OCI spec wants it: EOF",
            ),
            ("5", "config.json: not an OCI spec: invalid type: integer `5`"),
            ("{}", "config.json: `ociVersion` is missing"),
            (
                r#"{"ociVersion": "2.0.0"}"#,
                "config.json: ociVersion \"2.0.0\" is not supported, only 1.x is",
            ),
            (r#"{"ociVersion": "1.0.0"}"#, "config.json: `root` is missing"),
            (
                r#"{"ociVersion": "1.0.0", "root": {}}"#,
                "config.json: `process` is missing",
            ),
            (
                r#"{"ociVersion": "1.0.0", "root": {}, "process": {"cwd": "/"}}"#,
                "config.json: `linux` is missing",
            ),
            (
                r#"{"process": {"user": {"uid": 99999999999}, "cwd": "/"}}"#,
                "process.user.uid is not as the OCI spec wants it: invalid value: integer `99999999999`, expected u32",
            ),
            (
                r#"{"process": {"user": {"uid": -1}, "cwd": "/"}}"#,
                "process.user.uid is not as the OCI spec wants it: invalid value: integer `-1`, expected u32",
            ),
            (
                r#"{"process": {"user": {"uid": "root"}, "cwd": "/"}}"#,
                "process.user.uid is not as the OCI spec wants it: invalid type: string \"root\", expected u32",
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "moon"}]}}"#,
                "linux.namespaces[1].type is not as the OCI spec wants it: unknown variant `moon`",
            ),
            (
                r#"{"process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]}}"#,
                "process.rlimits[0].type is not as the OCI spec wants it: unknown variant `RLIMIT_FOO`",
            ),
            (
                r#"{"process": {"cwd": "/", "capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"]}}}"#,
                "process.capabilities.bounding[1] is not as the OCI spec wants it: no variant",
            ),
            (
                r#"{"mounts": [{"destination": "/x", "options": "ro"}]}"#,
                "mounts[0].options is not as the OCI spec wants it: invalid type: string \"ro\", expected a sequence",
            ),
        ];
        for (text, expected) in cases {
            let error = told(&open_text(text).unwrap_err());
            assert!(error.contains(expected), "{error}\n  lacks {expected}");
            assert!(error.starts_with('/'), "{error}");
        }
    }

    #[test]
    fn an_error_in_json_tells_line_and_column() {
        let error = told(&open_text("{\n  \"mounts\": [}\n}").unwrap_err());
        assert!(error.ends_with("at line 2 column 14"), "{error}");
    }

    #[test]
    fn a_huge_config_json_is_refused_by_its_size() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join(FILE_NAME))
            .unwrap()
            .set_len(100 << 20)
            .unwrap();
        let error = Bundle::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("config.json has 104857600 bytes, and at most 16777216 are allowed"),
            "{error}"
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), b"{\"hostname\": \"\xff\"}").unwrap();
        let error = Bundle::open(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("config.json is not UTF-8 text"), "{error}");
    }

    #[test]
    fn deep_nesting_ends_in_an_error_and_not_in_a_broken_stack() {
        let text = format!("{{\"hooks\": {}", "[".repeat(1 << 20));
        open_text(&text).unwrap_err();
        let text = format!("{{\"annotations\": {}", "{\"a\":".repeat(1 << 20));
        open_text(&text).unwrap_err();
    }

    #[test]
    fn the_directory_has_to_be_absolute_and_neither_it_nor_the_file_a_link() {
        assert!(matches!(Bundle::open(Path::new("bundle")), Err(Error::Path { .. })));
        assert!(matches!(
            Bundle::open(Path::new("/run/../bundle")),
            Err(Error::Path { .. })
        ));
        let dir = tempfile::tempdir().unwrap();
        let error = Bundle::open(dir.path()).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open {}/config.json", dir.path().display()));

        symlink(dir.path(), dir.path().join("link")).unwrap();
        let error = Bundle::open(&dir.path().join("link")).unwrap_err().to_string();
        assert!(error.starts_with("cannot open bundle /"), "{error}");

        let file = dir.path().join(FILE_NAME);
        symlink("/etc/hostname", &file).unwrap();
        assert!(matches!(Bundle::open(dir.path()), Err(Error::NotAFile { .. })));
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(matches!(Bundle::open(dir.path()), Err(Error::NotAFile { .. })));
        std::fs::remove_dir(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(Bundle::open(dir.path()), Err(Error::NotAFile { .. })));
    }

    #[test]
    fn unknown_properties_are_ignored() {
        let text = MINIMAL.replacen('{', r#"{"x-vendor": {"deep": [1, {"a": null}]}, "#, 1);
        open_text(&text).unwrap();
    }
}
