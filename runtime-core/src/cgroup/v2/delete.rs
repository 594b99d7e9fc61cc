//! Removing a container's cgroup.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::V2;
use crate::cgroup::Error;
use crate::cgroup::remove::remove_tree;

impl V2 {
    /// Kills what is in it.
    pub fn empty(&self, deadline: Instant) -> Result<(), Error> {
        if self.exists() {
            self.kill_until_empty(deadline)?;
        }
        Ok(())
    }

    pub fn delete(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        match self.part.remove() {
            Ok(()) => Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {
                self.kill_until_empty(deadline)?;
                remove_tree(&self.part, deadline)
            }
            Err(source) => Err(super::io("remove", &self.part, "", source)),
        }
    }
}
