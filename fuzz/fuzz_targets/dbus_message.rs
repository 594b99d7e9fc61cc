//! What systemd, or whoever sits at its socket, may answer: a message or an error, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The module is the library's own business: the file stands alone, in modules of the names that it is visible in.
#[allow(dead_code)]
#[path = "."]
mod cgroup {
    #[path = "."]
    pub mod systemd {
        #[path = "../../runtime-core/src/cgroup/systemd/message.rs"]
        mod message;

        /// Reads what stands at the front of `bytes`, as a connection does.
        pub fn read(bytes: &[u8]) {
            let Some(prefix) = bytes.first_chunk() else { return };
            let Ok(length) = message::length(prefix) else { return };
            // A connection reads as much as the prefix says.
            let Some(whole) = bytes.get(..length) else { return };
            let Ok(read) = message::Message::parse(whole) else { return };
            let mut body = read.body();
            while body.u32().is_ok() && body.text().is_ok() {}
        }
    }
}

fuzz_target!(|bytes: &[u8]| cgroup::systemd::read(bytes));
