//! Removing a container's cgroups.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::V1;
use crate::cgroup::Error;
use crate::cgroup::remove::remove_tree;

impl V1 {
    /// Kills what is in them.
    pub fn empty(&self, deadline: Instant) -> Result<(), Error> {
        self.all().try_for_each(|part| self.kill_until_empty(part, deadline))
    }

    pub fn delete(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let mut busy = Vec::new();
        for part in self.all() {
            match part.remove() {
                Ok(()) => {}
                Err(Errno::BUSY | Errno::NOTEMPTY) => busy.push(part),
                Err(source) => {
                    return Err(Error::Io {
                        operation: "remove",
                        path: part.full(),
                        source,
                    });
                }
            }
        }
        for &part in &busy {
            self.kill_until_empty(part, deadline)?;
        }
        busy.into_iter().try_for_each(|part| remove_tree(part, deadline))
    }
}
