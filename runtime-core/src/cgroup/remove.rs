//! Removing a cgroup with all below it. The same in both versions.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Error;
use super::directory::Directory;
use super::processes::processes;

/// The longest pause between two tries of rmdir.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Removes a cgroup and all below it, the deepest first. Nothing is in them any more, but what has just ended may count
/// for a moment, and nothing tells when that is over: so rmdir is tried again until `deadline`.
pub(super) fn remove_tree(top: &Directory, deadline: Instant) -> Result<(), Error> {
    let mut pause = Duration::from_micros(50);
    loop {
        if remove_once(top)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::NotRemoved {
                directory: top.full(),
                pids: processes(top)?,
                children: top.children()?,
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One walk through the tree; whether all of it is gone.
fn remove_once(top: &Directory) -> Result<bool, Error> {
    // A parent is tried again after the children that were pushed behind it.
    let mut stack = vec![(top.clone(), false)];
    let mut all = true;
    while let Some((directory, visited)) = stack.pop() {
        match directory.remove() {
            Ok(()) => {}
            Err(Errno::BUSY | Errno::NOTEMPTY) if visited => all = false,
            Err(Errno::BUSY | Errno::NOTEMPTY) => {
                let children = directory.children()?;
                stack.push((directory.clone(), true));
                stack.extend(children.iter().map(|name| (directory.child(name), false)));
            }
            Err(source) => {
                return Err(Error::Io {
                    operation: "remove",
                    path: directory.full(),
                    source,
                });
            }
        }
    }
    Ok(all)
}
