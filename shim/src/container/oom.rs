//! Telling containerd that the kernel killed a process of a container for want of memory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use containerd_shim_protos::events::task::TaskOOM;
use containerd_shim_protos::topics;
use runtime_core::cgroup::{self, OomWatch};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::Container;
use crate::service::errors::chain;

/// How often and how far apart a kill is looked for that was announced; what ends later is seen when init ends.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// How a process that was killed is reported: 128 + SIGKILL.
const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// When to look next.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// At the next event.
    Wait,
    /// Soon.
    Again,
    /// Never.
    Over,
}

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
        let mut look = container
            .upgrade()
            .map_or(Look::Over, |container| container.check_oom());
        // cgroup v1 tells of the lack of memory before it kills, and says nothing when it has.
        for _ in 0..LOOKS {
            if look != Look::Again {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            look = container
                .upgrade()
                .map_or(Look::Over, |container| container.check_oom());
        }
        if look == Look::Over {
            return;
        }
    }
}

impl Container {
    /// Publishes what happened since the last look.
    fn check_oom(&self) -> Look {
        self.look(OomWatch::take)
    }

    fn look(&self, take: impl FnOnce(&mut OomWatch) -> Result<u64, cgroup::Error>) -> Look {
        let mut watching = self.oom();
        let Some(watching) = watching.as_mut() else {
            return Look::Over;
        };
        match take(&mut watching.watch) {
            Ok(0) if watching.watch.pending() => Look::Again,
            Ok(0) => Look::Wait,
            Ok(_kills) => {
                let event = TaskOOM {
                    container_id: self.id.clone(),
                    ..TaskOOM::new()
                };
                self.shim.publisher.publish(topics::TASK_OOM_EVENT_TOPIC, event);
                Look::Wait
            }
            Err(error) => {
                log::warn!("watch container {} for OOM: {}", self.id, chain(&error));
                Look::Over
            }
        }
    }

    /// The kill that ended init may not have been told yet: it goes before the exit.
    pub(super) fn last_oom_check(&self, status: u32) {
        self.look(|watch| watch.take_last(status == KILLED));
        self.oom().take();
    }

    fn oom(&self) -> MutexGuard<'_, Option<Watching>> {
        self.oom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
