//! Whether a runsc may be run: who could have changed it, whether it is the one that is pinned, whether it is new
//! enough.
//!
//! It is opened once, component by component and without following a link. What was checked is what is hashed and what
//! is run: a read-only, detached clone of its mount, of which nobody else has a path.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::releases::Identity;
use super::{state, version};
use crate::sys::spawn;

/// Why a runsc is not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Untrusted {
    #[error("runsc: there is none at {paths}; install it, or set gvisor.path")]
    Missing { paths: String },
    #[error("runsc {}: the path is not absolute and clean", path.display())]
    Path { path: PathBuf },
    #[error("runsc {}: {} is a symbolic link; name the file itself", path.display(), at.display())]
    Link { path: PathBuf, at: PathBuf },
    #[error("runsc {}: {} belongs to user {uid}, not to root", path.display(), at.display())]
    Owner { path: PathBuf, at: PathBuf, uid: u32 },
    #[error("runsc {}: {} can be written by others than root (mode {mode:04o})", path.display(), at.display())]
    Writable { path: PathBuf, at: PathBuf, mode: u32 },
    #[error("runsc {}: not an executable file", path.display())]
    NotAProgram { path: PathBuf },
    #[error("runsc {}: its sha256 is {found}, and gvisor.sha256 is {expected}", path.display())]
    Digest {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("runsc {}: {said:?} names no release; {} or later is needed", path.display(), version::MINIMUM)]
    NoVersion { path: PathBuf, said: String },
    #[error("runsc {}: its release {found} is older than {}, which is the oldest that is \
        tested", path.display(), version::MINIMUM)]
    Old { path: PathBuf, found: u32 },
    #[error("runsc {}: {operation}", path.display())]
    Io {
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
}

/// A runsc that was found fit to be run.
#[derive(Debug)]
pub struct Runsc {
    fd: OwnedFd,
}

impl Runsc {
    /// Finds, opens and checks the runsc of `config`, once a shim. Takes the time of one `runsc --version` where it was
    /// not asked before, and of reading the file where its digest is pinned.
    ///
    /// # Errors
    /// What is wrong with it, each by its own text.
    pub fn open(config: &Config) -> Result<Arc<Self>, Untrusted> {
        let (path, file) = find(&config.paths)?;
        let failed = |operation| {
            let path = path.clone();
            move |source: io::Error| Untrusted::Io {
                path,
                operation,
                source,
            }
        };
        let fd = spawn::detached_file(&file).map_err(failed("cloning its mount (open_tree)"))?;
        if let Some(expected) = config.sha256.clone() {
            let found = digest(&fd).map_err(failed("reading it"))?;
            if found != expected {
                return Err(Untrusted::Digest { path, found, expected });
            }
        }
        let identity = Identity::of(&fd).map_err(failed("looking at it"))?;
        let releases = state::releases();
        let found = match releases.get(identity) {
            Some(found) => found,
            None => {
                let said = ask_version(&fd).map_err(failed("asking for its version"))?;
                let found = version::date(&said).ok_or_else(|| Untrusted::NoVersion {
                    path: path.clone(),
                    said: said.lines().next().unwrap_or_default().to_owned(),
                })?;
                // What cannot be remembered is asked again by the next pod.
                if state::make_root().is_ok() {
                    let _ = releases.put(identity, found);
                }
                found
            }
        };
        if found < version::MINIMUM {
            return Err(Untrusted::Old { path, found });
        }
        Ok(Arc::new(Self { fd }))
    }

    /// What is to be executed, by fd.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// The first of `paths` that exists, checked, as an O_PATH fd.
fn find(paths: &[PathBuf]) -> Result<(PathBuf, OwnedFd), Untrusted> {
    for path in paths {
        if let Some(file) = walk(path)? {
            return Ok((path.clone(), file));
        }
    }
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(Untrusted::Missing {
        paths: paths.join(" or "),
    })
}

/// Opens `path` one component after the other, each of them root's alone; None where one does not exist.
fn walk(path: &Path) -> Result<Option<OwnedFd>, Untrusted> {
    let failed = |operation| {
        move |errno: rustix::io::Errno| Untrusted::Io {
            path: path.to_owned(),
            operation,
            source: errno.into(),
        }
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = PathBuf::from("/");
    let mut fd = rustix::fs::open("/", flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed("opening /"))?;
    check(path, &at, &rustix::fs::fstat(&fd).map_err(failed("looking at /"))?)?;
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(Untrusted::Path { path: path.into() });
    }
    for component in components {
        let Component::Normal(name) = component else {
            return Err(Untrusted::Path { path: path.into() });
        };
        at.push(name);
        fd = match rustix::fs::openat(&fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("opening its path")(errno)),
        };
        check(
            path,
            &at,
            &rustix::fs::fstat(&fd).map_err(failed("looking at its path"))?,
        )?;
    }
    let stat = rustix::fs::fstat(&fd).map_err(failed("looking at it"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o100 == 0 {
        return Err(Untrusted::NotAProgram { path: path.into() });
    }
    Ok(Some(fd))
}

/// One component: no link, root's, and writable by root alone. The sticky bit is no excuse: it lets others make files.
fn check(path: &Path, at: &Path, stat: &Stat) -> Result<(), Untrusted> {
    let (path, at) = (path.to_owned(), at.to_owned());
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Untrusted::Link { path, at });
    }
    if stat.st_uid != 0 {
        return Err(Untrusted::Owner {
            path,
            at,
            uid: stat.st_uid,
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Untrusted::Writable { path, at, mode });
    }
    Ok(())
}

fn digest(fd: &OwnedFd) -> io::Result<String> {
    let mut file = readable(fd)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The file of an O_PATH fd, for reading.
fn readable(fd: &OwnedFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (wanted, found) = (rustix::fs::fstat(fd)?, rustix::fs::fstat(&opened)?);
    // /proc is the host's; were it not, this would be another file.
    if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    Ok(opened.into())
}

/// What `runsc --version` prints; nothing is handed to it but three streams.
fn ask_version(fd: &OwnedFd) -> io::Result<String> {
    const LIMIT: u64 = 4096;
    let null = spawn::dev_null()?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let argv: [&CStr; 2] = [c"runsc", c"--version"];
    let (pid, pidfd) = spawn::spawn(fd.as_fd(), &argv, &[null.as_fd(), writer.as_fd(), null.as_fd()])?;
    let process = crate::native::Process::new(pid, pidfd);
    drop(writer);
    let ended = super::launch::within(&process, super::launch::VERSION_LIMIT)?;
    let mut said = String::new();
    if ended.is_some() {
        File::from(reader).take(LIMIT).read_to_string(&mut said)?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A runsc in a directory that is root's alone; None where the tests are not root's, or their directory is not.
    fn installed(script: &str) -> Option<(tempfile::TempDir, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let directory = tempfile::tempdir_in("/var/lib").ok()?;
        set_mode(directory.path(), 0o755);
        let path = directory.path().join("runsc");
        std::fs::write(&path, script).unwrap();
        set_mode(&path, 0o755);
        walk(&path).ok()??;
        Some((directory, path))
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        walk(path).unwrap_err().to_string()
    }

    #[test]
    fn every_component_has_to_be_root_s_alone() {
        let Some((directory, path)) = installed("") else { return };
        set_mode(&path, 0o775);
        assert!(refusal(&path).ends_with("runsc can be written by others than root (mode 0775)"));
        set_mode(&path, 0o755);
        set_mode(directory.path(), 0o1777);
        assert!(refusal(&path).contains("can be written by others than root (mode 1777)"));
        set_mode(directory.path(), 0o755);
        std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
        assert!(refusal(&path).ends_with("runsc belongs to user 1000, not to root"));
    }

    #[test]
    fn a_link_anywhere_in_the_path_is_refused() {
        let Some((directory, path)) = installed("") else { return };
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refusal(&link).contains("is a symbolic link"));
        let above = directory.path().join("above");
        symlink(directory.path(), &above).unwrap();
        assert!(refusal(&above.join("runsc")).contains("above is a symbolic link"));
    }

    #[test]
    fn what_is_no_program_or_no_path_is_refused() {
        let Some((directory, path)) = installed("") else { return };
        set_mode(&path, 0o644);
        assert!(refusal(&path).ends_with("not an executable file"));
        assert!(refusal(directory.path()).ends_with("not an executable file"));
        assert!(refusal(Path::new("usr/bin/runsc")).contains("not absolute"));
        assert!(refusal(Path::new("/usr/../bin/runsc")).contains("not absolute and clean"));
    }

    #[test]
    fn the_first_that_exists_is_taken_and_none_is_an_error_that_names_them() {
        let Some((_directory, path)) = installed("") else {
            return;
        };
        let missing = PathBuf::from("/nonexistent/runsc");
        assert_eq!(find(&[missing.clone(), path.clone()]).unwrap().0, path);
        let error = find(&[missing]).unwrap_err().to_string();
        assert!(
            error.starts_with("runsc: there is none at /nonexistent/runsc;"),
            "{error}"
        );
    }

    #[test]
    fn what_was_opened_is_hashed_whatever_the_path_says_by_then() {
        let Some((_directory, path)) = installed("one") else {
            return;
        };
        let file = walk(&path).unwrap().unwrap();
        let before = digest(&file).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(digest(&file).unwrap(), before);
    }
}
