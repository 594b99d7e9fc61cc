//! Telling containerd that the kernel killed a process of a container for want of memory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use containerd_shim_protos::events::task::TaskOOM;
use containerd_shim_protos::topics;
use runtime_core::cgroup::OomWatch;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::Container;
use crate::service::errors::chain;

/// A watch and the task that waits for it.
#[derive(Debug)]
pub struct Watching {
    watch: OomWatch,
    follower: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

/// Publishes each kill that `watch` tells of, until the container's last one.
pub fn watch(container: &Arc<Container>, watch: Option<OomWatch>) {
    let Some(watch) = watch else { return };
    let follower = watch
        .fd()
        .try_clone()
        .and_then(|fd| crate::io::watch::watch(fd, Interest::READABLE))
        .map(|fd| tokio::spawn(follow(fd, Arc::downgrade(container))))
        // Without it only the check at init's end is left: better than nothing.
        .inspect_err(|error| log::warn!("watch container {} for OOM: {error}", container.id));
    *container.oom() = Some(Watching {
        watch,
        follower: follower.ok(),
    });
}

async fn follow(fd: AsyncFd<OwnedFd>, container: Weak<Container>) {
    while let Ok(mut ready) = fd.readable().await {
        ready.clear_ready();
        if !container.upgrade().is_some_and(|container| container.check_oom()) {
            return;
        }
    }
}

impl Container {
    /// Publishes what happened since the last look. Whether there will be another one.
    fn check_oom(&self) -> bool {
        let mut watching = self.oom();
        let Some(watching) = watching.as_mut() else {
            return false;
        };
        match watching.watch.take() {
            Ok(0) => true,
            Ok(_kills) => {
                let event = TaskOOM {
                    container_id: self.id.clone(),
                    ..TaskOOM::new()
                };
                self.shim.publisher.publish(topics::TASK_OOM_EVENT_TOPIC, event);
                true
            }
            Err(error) => {
                log::warn!("watch container {} for OOM: {}", self.id, chain(&error));
                false
            }
        }
    }

    /// The kill that ended init may not have been told yet: it goes before the exit.
    pub(super) fn last_oom_check(&self) {
        self.check_oom();
        self.oom().take();
    }

    fn oom(&self) -> MutexGuard<'_, Option<Watching>> {
        self.oom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
