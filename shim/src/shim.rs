//! What all containers of one shim share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime_core::backend::{Backends, Owner};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::container::{Container, Error};
use crate::events::Publisher;
use crate::sandbox::Sandbox;

/// Threads for blocking work at once; what is more waits.
const THREADS: usize = 32;
/// Their stacks: parsing of config.json recurses up to 128 levels deep; the rest is shallow. Only what is used takes
/// memory.
const STACK: usize = 512 << 10;

/// How long whoever has ended the shim may stay connected to it.
const LINGER: Duration = Duration::from_secs(2);

/// One shim: the containers of a group and what they need.
pub struct Shim {
    /// containerd's namespace.
    pub namespace: String,
    /// Goes into every container's record.
    pub owner: Owner,
    /// Events to containerd.
    pub publisher: Publisher,
    /// Whether anybody needs this shim.
    pub activity: watch::Sender<Activity>,
    /// What runs its containers.
    pub backends: Backends,
    inner: Mutex<Inner>,
    blocking: watch::Sender<usize>,
    threads: Semaphore,
    shutdown: Notify,
    socket: PathBuf,
}

#[derive(Default)]
struct Inner {
    containers: HashMap<String, Slot>,
    sandbox: Option<SandboxSlot>,
    ending: bool,
}

enum SandboxSlot {
    /// Being created.
    Reserved,
    /// Until it is shut down.
    Created(Arc<Sandbox>),
}

enum Slot {
    /// Being created: the id is taken, the container is not there yet.
    Reserved,
    Created(Arc<Container>),
}

/// Who needs this shim.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Open connections.
    pub connections: usize,
    /// Containers, also those being created.
    pub containers: usize,
    /// A sandbox that was not stopped.
    pub sandbox: bool,
}

impl Activity {
    /// Nobody.
    pub fn is_idle(self) -> bool {
        self == Self::default()
    }
}

/// Why an id is not free.
#[derive(Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// There is such a container.
    Exists,
    /// The shim ends: containerd will start another one.
    Ending,
}

/// The place of a sandbox about to be; free again unless it becomes one.
pub struct SandboxReservation {
    shim: Option<Arc<Shim>>,
}

/// An id that is taken for a container about to be; free again unless it becomes one.
pub struct Reservation {
    shim: Arc<Shim>,
    id: Option<String>,
}

impl Shim {
    /// A shim without containers, serving on `socket`.
    pub fn new(namespace: String, group: String, socket: PathBuf, publisher: Publisher) -> Self {
        Self {
            owner: Owner {
                namespace: namespace.clone(),
                group,
                socket: Some(socket.clone()),
            },
            namespace,
            publisher,
            activity: watch::Sender::default(),
            backends: Backends::default(),
            inner: Mutex::default(),
            blocking: watch::Sender::new(0),
            threads: Semaphore::new(THREADS),
            shutdown: Notify::new(),
            socket,
        }
    }

    /// Runs what blocks on a thread of its own, which ends with it: a thread that waits for more would keep its stack.
    /// Meanwhile orphans are not reaped: a child that the work has just made, a hook for one, must not be taken for
    /// one.
    ///
    /// # Errors
    /// [`Error::Thread`] where the kernel has no thread for us, [`Error::Panicked`].
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let work = InFlight::new(self.blocking.clone()).around(work);
        // Counted on this thread too, until the caller has its turn and registers what was made.
        let _counted = InFlight::new(self.blocking.clone());
        // Never closed: an error here cannot be.
        let _permit = self.threads.acquire().await;
        let (done, result) = oneshot::channel();
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || drop(done.send(work())))
            .map_err(Error::Thread)?;
        result.await.map_err(|_| Error::Panicked)
    }

    /// How many calls of [`Self::blocking`] have not come back.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.blocking.subscribe()
    }

    /// Takes `id` for a container that is about to be created.
    pub fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, Unavailable> {
        let mut inner = self.inner();
        if inner.ending {
            return Err(Unavailable::Ending);
        }
        if inner.containers.contains_key(id) {
            return Err(Unavailable::Exists);
        }
        inner.containers.insert(id.to_owned(), Slot::Reserved);
        self.count(&inner);
        Ok(Reservation {
            shim: Arc::clone(self),
            id: Some(id.to_owned()),
        })
    }

    /// The container of that id, once it was created.
    pub fn container(&self, id: &str) -> Option<Arc<Container>> {
        match self.inner().containers.get(id) {
            Some(Slot::Created(container)) => Some(Arc::clone(container)),
            Some(Slot::Reserved) | None => None,
        }
    }

    /// Takes the place of this shim's sandbox.
    pub fn reserve_sandbox(self: &Arc<Self>) -> Result<SandboxReservation, Unavailable> {
        let mut inner = self.inner();
        if inner.ending {
            return Err(Unavailable::Ending);
        }
        if inner.sandbox.is_some() {
            return Err(Unavailable::Exists);
        }
        inner.sandbox = Some(SandboxSlot::Reserved);
        self.activity.send_modify(|activity| activity.sandbox = true);
        Ok(SandboxReservation {
            shim: Some(Arc::clone(self)),
        })
    }

    /// The sandbox that this shim has made, until it ends.
    pub fn sandbox(&self) -> Option<Arc<Sandbox>> {
        match &self.inner().sandbox {
            Some(SandboxSlot::Created(sandbox)) => Some(Arc::clone(sandbox)),
            Some(SandboxSlot::Reserved) | None => None,
        }
    }

    /// It is there, but holds nothing any more.
    pub fn sandbox_ended(&self) {
        self.activity.send_modify(|activity| activity.sandbox = false);
    }

    /// Those that are created.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let inner = self.inner();
        let created = inner.containers.values().filter_map(|slot| match slot {
            Slot::Created(container) => Some(Arc::clone(container)),
            Slot::Reserved => None,
        });
        created.collect()
    }

    /// Forgets a container that was deleted.
    pub fn remove(&self, id: &str) {
        let mut inner = self.inner();
        inner.containers.remove(id);
        self.count(&inner);
    }

    /// Reaps the helper (a native container's holder) that has `pid`, if one has: it ended before its container.
    pub fn end_helper(&self, pid: i32) -> bool {
        let inner = self.inner();
        let containers = inner.containers.values().filter_map(|slot| match slot {
            Slot::Created(container) => Some(container),
            Slot::Reserved => None,
        });
        containers.into_iter().any(|container| container.end_helper(pid))
    }

    /// Ends the shim unless it has containers or a sandbox; whether it does. From here on a `start` makes a new socket,
    /// and no container is created any more: none can be lost between.
    pub fn end_if_unused(&self) -> bool {
        let inner = self.inner();
        let has_sandbox = inner.sandbox.is_some();
        !has_sandbox && self.end_without_containers(inner)
    }

    /// The same where nobody is connected any more: a sandbox that was stopped keeps no shim then.
    pub fn end_if_idle(&self) -> bool {
        let inner = self.inner();
        let is_idle = self.activity.borrow().is_idle();
        is_idle && self.end_without_containers(inner)
    }

    fn end_without_containers(&self, mut inner: MutexGuard<'_, Inner>) -> bool {
        if !inner.containers.is_empty() {
            return false;
        }
        if !inner.ending {
            inner.ending = true;
            self.end();
        }
        true
    }

    /// Ends the shim whatever it has.
    pub fn end(&self) {
        self.remove_socket();
        self.shutdown.notify_one();
    }

    /// The same, but once nobody is connected any more, or after a while: containerd's client may take a connection
    /// that closes right behind an answer for one that closed without.
    pub fn end_when_left(self: &Arc<Self>) {
        self.inner().ending = true;
        self.remove_socket();
        let shim = Arc::clone(self);
        tokio::spawn(async move {
            let mut activity = shim.activity.subscribe();
            let left = activity.wait_for(|activity| activity.connections == 0);
            // Either will do.
            let _ = tokio::time::timeout(LINGER, left).await;
            shim.shutdown.notify_one();
        });
    }

    fn remove_socket(&self) {
        // Gone already is all the same; anything else leaves a socket that the next start finds stale.
        if let Err(error) = std::fs::remove_file(&self.socket)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("remove {}: {error}", self.socket.display());
        }
    }

    /// Waits for [`Self::end`].
    pub async fn ended(&self) {
        self.shutdown.notified().await;
    }

    fn count(&self, inner: &Inner) {
        let containers = inner.containers.len();
        self.activity.send_modify(|activity| activity.containers = containers);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// It is a container now.
    pub fn fulfil(mut self, container: Arc<Container>) {
        if let Some(id) = self.id.take() {
            self.shim.inner().containers.insert(id, Slot::Created(container));
        }
    }
}

impl SandboxReservation {
    /// It is a sandbox now.
    pub fn fulfil(mut self, sandbox: Arc<Sandbox>) {
        if let Some(shim) = self.shim.take() {
            shim.inner().sandbox = Some(SandboxSlot::Created(sandbox));
        }
    }
}

impl Drop for SandboxReservation {
    fn drop(&mut self) {
        if let Some(shim) = self.shim.take() {
            shim.inner().sandbox = None;
            shim.sandbox_ended();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shim.remove(&id);
        }
    }
}

/// Counts work on another thread, also when the one who asked for it has gone.
struct InFlight(watch::Sender<usize>);

impl InFlight {
    fn new(count: watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }

    fn around<T>(self, work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        move || {
            let _counted = self;
            work()
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shim(socket: PathBuf) -> Arc<Shim> {
        let publisher = Publisher::new(String::new(), "default".into());
        Arc::new(Shim::new("default".into(), "g".into(), socket, publisher))
    }

    #[tokio::test]
    async fn an_id_is_taken_while_its_container_is_created_and_free_after_a_failure() {
        let shim = shim("/nonexistent/socket".into()).await;
        let reservation = shim.reserve("c1").unwrap();
        assert_eq!(shim.reserve("c1").err(), Some(Unavailable::Exists));
        assert_eq!(shim.activity.borrow().containers, 1);
        assert!(!shim.end_if_unused());
        drop(reservation);
        assert!(shim.activity.borrow().is_idle());
        assert!(shim.reserve("c1").is_ok());
    }

    #[tokio::test]
    async fn an_unused_shim_ends_once_removes_its_socket_and_takes_no_more_containers() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        std::fs::write(&socket, "").unwrap();
        let shim = shim(socket.clone()).await;
        assert!(shim.end_if_unused());
        assert!(!socket.exists());
        // Another shim's by now.
        std::fs::write(&socket, "").unwrap();
        assert!(shim.end_if_unused());
        assert!(socket.exists());
        assert_eq!(shim.reserve("c1").err(), Some(Unavailable::Ending));
        shim.ended().await;
    }

    #[tokio::test]
    async fn a_shim_has_one_sandbox_and_lives_as_long_as_that() {
        let shim = shim("/nonexistent/socket".into()).await;
        let reservation = shim.reserve_sandbox().unwrap();
        assert_eq!(shim.reserve_sandbox().err(), Some(Unavailable::Exists));
        assert!(!shim.activity.borrow().is_idle());
        // What containerd asks after each of its containers.
        assert!(!shim.end_if_unused());
        assert!(!shim.end_if_idle());
        drop(reservation);
        assert!(shim.activity.borrow().is_idle());
        assert!(shim.end_if_unused());
        assert_eq!(shim.reserve_sandbox().err(), Some(Unavailable::Ending));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_is_told_to_end_waits_for_its_client_to_go_but_not_for_ever() {
        for leaves in [true, false] {
            let shim = shim("/nonexistent/socket".into()).await;
            shim.activity.send_modify(|activity| activity.connections = 1);
            shim.end_when_left();
            assert_eq!(shim.reserve("c1").err(), Some(Unavailable::Ending));
            assert!(tokio::time::timeout(LINGER / 2, shim.ended()).await.is_err());
            if leaves {
                shim.activity.send_modify(|activity| activity.connections = 0);
                assert!(tokio::time::timeout(LINGER / 4, shim.ended()).await.is_ok());
            } else {
                shim.ended().await;
            }
        }
    }

    #[tokio::test]
    async fn work_on_other_threads_is_counted_until_it_ends() {
        let shim = shim("/nonexistent/socket".into()).await;
        let mut in_flight = shim.in_flight();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let asking = {
            let shim = Arc::clone(&shim);
            tokio::spawn(async move { shim.blocking(move || wait.recv()).await })
        };
        in_flight.wait_for(|count| *count == 2).await.unwrap();
        // The one who asked goes away: the work goes on, and so does its count.
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        assert_eq!(*in_flight.borrow(), 1);
        go.send(()).unwrap();
        in_flight.wait_for(|count| *count == 0).await.unwrap();
    }
}
