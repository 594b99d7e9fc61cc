//! Coming to rest: a shim that has started a container mostly waits from then on.

use std::time::Duration;

use runtime_core::sys::release;

/// Until containerd has its answer and its events, and the pod perhaps its next container.
const SOON: Duration = Duration::from_secs(1);

/// Gives back soon what only making a container takes. An exec takes some of it anew.
pub fn soon() {
    tokio::spawn(async {
        tokio::time::sleep(SOON).await;
        release::stack();
        release::program();
    });
}
