//! A seccomp agent, to be run on the host: takes listeners as the OCI spec has them sent, prints what it is told, and
//! lets every call pass.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// Listens at `socket` until killed; one line of JSON for each process and each call.
pub fn serve(socket: &str) -> ! {
    let listener = match UnixListener::bind(socket) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("probe: agent: {error}");
            std::process::exit(1)
        }
    };
    say(&json!("ready"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || match take(&stream) {
            Some((state, listener)) => {
                drop(stream);
                say(&json!({"state": state}));
                while let Some(call) = crate::syscalls::let_pass(&listener) {
                    say(&json!({"call": call}));
                }
            }
            None => say(&json!({"error": "no state with one listener"})),
        });
    }
    std::process::exit(1)
}

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// The container process state, and the one descriptor beside it.
fn take(stream: &UnixStream) -> Option<(Value, OwnedFd)> {
    let (mut text, mut listeners) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                listeners.extend(rights);
            }
        }
        text.extend_from_slice(&bytes[..received.bytes]);
        // The sender may keep its end open: the state is whole when it can be read.
        if let Ok(state) = serde_json::from_slice(&text) {
            let listener = listeners.pop().filter(|_| listeners.is_empty())?;
            return Some((state, listener));
        }
        if received.bytes == 0 {
            return None;
        }
    }
}
