//! journald's own protocol: one datagram of `FIELD=value` lines (systemd's "Native Journal Protocol").

use std::io;
use std::os::unix::net::UnixDatagram;

use super::{Decision, Error};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends one message; the line has no line end in it, since it is JSON.
pub fn send(line: &str, decision: Decision) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Journal { path: SOCKET, source };
    let socket = UnixDatagram::unbound().map_err(failed)?;
    // A journal that takes nothing must not hold a container for ever.
    socket
        .set_write_timeout(Some(std::time::Duration::from_secs(10)))
        .map_err(failed)?;
    socket
        .send_to(message(line, decision).as_bytes(), SOCKET)
        .map_err(failed)?;
    Ok(())
}

/// syslog(3)'s priorities: notice, and warning for what was not simply allowed.
fn message(line: &str, decision: Decision) -> String {
    let priority = if decision == Decision::Allowed { 5 } else { 4 };
    format!("MESSAGE={line}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=nucleus-audit\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_lines_of_fields() {
        assert_eq!(
            message("{}", Decision::Refused),
            "MESSAGE={}\nPRIORITY=4\nSYSLOG_IDENTIFIER=nucleus-audit\n"
        );
    }
}
