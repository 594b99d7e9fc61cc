//! How long compiling takes: printed, never judged, since a busy machine would decide.

use std::time::{Duration, Instant};

use runtime_core::security::seccomp::{Machine, compile_for};

use super::known;

/// The quickest of many: what the work takes where nothing else is in its way.
pub fn quickest<T>(work: impl Fn() -> T) -> Duration {
    const ROUNDS: usize = 200;
    let once = || {
        let begun = Instant::now();
        std::hint::black_box(work());
        begun.elapsed()
    };
    (0..ROUNDS).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn speed_of_known_profiles() {
    use sha2::Digest as _;
    for (name, profile) in known() {
        let compiled = quickest(|| compile_for(&profile, Machine::X86_64).unwrap());
        // What a cache by content would have to do first.
        let hashed = quickest(|| sha2::Sha256::digest(serde_json::to_vec(&profile).unwrap()));
        println!("{name}: compiled in {compiled:?}; its digest alone takes {hashed:?}");
    }
}
