//! What a hook says, bounded.

use std::io::{self, Read};

/// Bytes that are kept: the end, where the reason usually stands.
pub(super) const KEPT: usize = 4096;

/// The end of what a hook says.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Takes what there is to read; false at end of file.
    pub(super) fn take_from(&mut self, reader: &mut io::PipeReader) -> bool {
        let mut buffer = [0u8; KEPT];
        // Bounded, so that an endless printer cannot keep us from looking at the clock.
        for _ in 0..256 {
            match reader.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.0.extend_from_slice(&buffer[..length]);
                    let surplus = self.0.len().saturating_sub(KEPT);
                    self.0.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    pub(super) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.0).trim().into()
    }
}
