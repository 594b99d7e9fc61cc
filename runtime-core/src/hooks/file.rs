//! Whose file a hook is.

use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Error;

/// The user that stands for all those whom a user namespace does not know: user_namespaces(7).
const OVERFLOW_UID: u32 = 65534;
/// Directories above a hook, at most: a guard against a `..` that never ends.
const DEPTH_MAX: usize = 4096;

/// Looks at the file and at every directory above it. All of them being root's alone, nobody else can exchange the file
/// between this look and its execution, which therefore goes by its path: scripts need that.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let refused = |what| Error::Refused {
        path: path.into(),
        what,
    };
    let io = |operation| {
        move |error: Errno| Error::Io {
            operation,
            path: path.into(),
            source: error.into(),
        }
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused("its path names no file"));
    };
    if !path.is_absolute() {
        return Err(refused("its path is not absolute"));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut directory =
        rustix::fs::open(parent, flags | OFlags::DIRECTORY, Mode::empty()).map_err(io("open the directory"))?;
    let file =
        rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(io("open the file"))?;
    let stat = rustix::fs::fstat(&file).map_err(io("stat the file"))?;
    judge_file(&stat).map_err(refused)?;
    let mut below = None;
    for _ in 0..DEPTH_MAX {
        let stat = rustix::fs::fstat(&directory).map_err(io("stat a directory above the file"))?;
        judge_directory(&stat).map_err(refused)?;
        if below == Some((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        below = Some((stat.st_dev, stat.st_ino));
        let up = rustix::fs::openat(&directory, "..", flags | OFlags::DIRECTORY, Mode::empty());
        directory = up.map_err(io("open a directory above the file"))?;
    }
    Err(refused("it lies too deep"))
}

fn judge_file(stat: &Stat) -> Result<(), &'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err("it is a symbolic link; give the path of the file itself"),
        _ => return Err("it is not a regular file"),
    }
    if !is_roots(stat) {
        return Err("it is not owned by root");
    }
    match stat.st_mode {
        mode if mode & 0o022 != 0 => Err("it can be written to by others than root"),
        mode if mode & 0o6000 != 0 => Err("it is setuid or setgid"),
        mode if mode & 0o111 == 0 => Err("it is not executable"),
        _ => Ok(()),
    }
}

fn judge_directory(stat: &Stat) -> Result<(), &'static str> {
    if !is_roots(stat) {
        return Err("a directory above it is not owned by root");
    }
    // In a sticky directory nobody can exchange what is another's: /tmp.
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
        return Err("a directory above it can be written to by others than root");
    }
    Ok(())
}

/// In a container's user namespace the host's root is not known and shows as the overflow user. A hook that runs there
/// has no rights on the host that a wrong owner could steal.
fn is_roots(stat: &Stat) -> bool {
    stat.st_uid == 0 || (stat.st_uid == OVERFLOW_UID && is_root_unknown())
}

fn is_root_unknown() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // The first user namespace maps everybody to himself; one line, from 0, to 0.
    let first = map.split_ascii_whitespace().take(2).eq(["0", "0"]);
    !map.is_empty() && !first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roots_own_files_in_roots_own_directories_are_run() {
        let mut stat = rustix::fs::stat("/").unwrap();
        let mut file = |mode: u32, uid: u32| {
            (stat.st_mode, stat.st_uid) = (libc::S_IFREG | mode, uid);
            judge_file(&stat)
        };
        assert_eq!(file(0o755, 0), Ok(()));
        assert_eq!(file(0o100, 0), Ok(()));
        assert_eq!(file(0o755, 1000), Err("it is not owned by root"));
        assert_eq!(file(0o775, 0), Err("it can be written to by others than root"));
        assert_eq!(file(0o757, 0), Err("it can be written to by others than root"));
        assert_eq!(file(0o4755, 0), Err("it is setuid or setgid"));
        assert_eq!(file(0o2755, 0), Err("it is setuid or setgid"));
        assert_eq!(file(0o644, 0), Err("it is not executable"));
        let mut directory = |mode: u32, uid: u32| {
            (stat.st_mode, stat.st_uid) = (libc::S_IFDIR | mode, uid);
            judge_directory(&stat)
        };
        assert_eq!(directory(0o755, 0), Ok(()));
        assert_eq!(directory(0o1777, 0), Ok(()));
        assert_eq!(
            directory(0o777, 0),
            Err("a directory above it can be written to by others than root")
        );
        assert_eq!(directory(0o755, 7), Err("a directory above it is not owned by root"));
    }
}
