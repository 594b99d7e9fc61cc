//! Putting a process into a cgroup of the unified hierarchy from outside.

use rustix::io::Errno;

use super::Error;
use super::directory::Directory;

const PROCS: &str = "cgroup.procs";

/// Puts `pid` into `part` or, where that takes none, beside `init` in one below it.
pub(super) fn place(part: &Directory, pid: i32, init: Option<i32>) -> Result<(), Error> {
    let text = pid.to_string();
    match (part.try_write(PROCS, &text), init) {
        (Ok(()), _) => Ok(()),
        (Err(Errno::BUSY), Some(init)) => match beside(part, init) {
            Some(inner) => inner.write(PROCS, &text),
            None => Err(part.write_error(PROCS, &text, Errno::BUSY)),
        },
        (Err(error), _) => Err(part.write_error(PROCS, &text, error)),
    }
}

/// The cgroup below `part` that `init` is in. Its name is the container's word, and cannot lead out: none is called
/// `..`, and there are no links.
fn beside(part: &Directory, init: i32) -> Option<Directory> {
    let text = std::fs::read_to_string(format!("/proc/{init}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    below(&part.path, path).map(|inner| part.child(inner))
}

/// What comes behind the container's path, which may itself stand below what we see of the hierarchy.
fn below<'a>(own: &str, path: &'a str) -> Option<&'a str> {
    let (_, inner) = path.split_once(&format!("/{own}/"))?;
    Some(inner)
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn the_cgroup_of_an_init_that_moved_is_told_below_the_container_s() {
        assert_eq!(below("default/c", "/default/c/init.scope"), Some("init.scope"));
        assert_eq!(below("default/c", "/docker/x/default/c/a/b"), Some("a/b"));
        for elsewhere in ["/default/c", "/default/c2/init.scope", "/", ""] {
            assert_eq!(below("default/c", elsewhere), None, "{elsewhere}");
        }
    }
}
