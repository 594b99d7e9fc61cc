//! What containerd pipes into an action.

use std::io::{self, IsTerminal as _, Read as _};

/// More than containerd ever writes: options with a whole configuration file in them stay far below.
const LIMIT: u64 = 10 << 20;

/// Reads stdin to its end. Nothing is read from a terminal: nobody pipes anything in when a person tries an action.
pub fn read() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin.lock().take(LIMIT).read_to_end(&mut input)?;
    }
    Ok(input)
}
