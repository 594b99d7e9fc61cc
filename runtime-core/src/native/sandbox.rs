//! A pod's sandbox, from the shim's side: the process that holds its namespaces is made, and ended.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::child::forked;
use super::wire::{self, Message, Tag};
use super::{Error, Executable, Owner, Process, io};
use crate::plan::{self, Namespace};
use crate::record::{ProcessId, Record};
use crate::sys::{message, spawn};

/// A pod's sandbox. Its process lives until [`Sandbox::kill`], or until this is gone, with the shim or without.
#[derive(Debug)]
pub struct Sandbox {
    pidfd: OwnedFd,
    /// Its end is the process's.
    _control: OwnedFd,
    bundle: PathBuf,
}

impl Sandbox {
    /// Makes it; its process is a child of ours, to be waited for. On error nothing is left.
    ///
    /// # Errors
    /// A namespace that cannot be made or joined, a setting that the kernel refuses, by their own text.
    pub fn create(exe: &Executable, sandbox: &plan::Sandbox, owner: &Owner) -> Result<(Self, Process), Error> {
        let container = &sandbox.container;
        // Without a cgroup: its process stands beside the pod's, where no limit of the pod's hits it.
        let record = owner.empty_record(&container.id);
        let mut record = record.map_err(io("reading our own start time"))?;
        record.write(&container.bundle)?;
        let made = start(exe, sandbox).and_then(|(process, control)| {
            record.init = ProcessId::of(process.pid());
            let noted = record.write(&container.bundle).map_err(Error::from);
            let pidfd = process.pidfd().try_clone().map_err(io("duplicating a pidfd"));
            match noted.and(pidfd) {
                Ok(pidfd) => Ok((
                    Self {
                        pidfd,
                        _control: control,
                        bundle: container.bundle.clone(),
                    },
                    process,
                )),
                Err(error) => {
                    end(&process);
                    Err(error)
                }
            }
        });
        made.inspect_err(|_| {
            // What stays is `clean`'s, by the record.
            let _ = Record::remove(&container.bundle);
        })
    }

    /// Ends its process, and with it the pod's PID namespace; done again, it does no harm.
    pub fn kill(&self) -> Result<(), Error> {
        match crate::sys::process::send_signal(&self.pidfd, libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(io("ending the sandbox")(error)),
            _ => Ok(()),
        }
    }

    /// Removes what is on disk about it, once its process has ended; done again, it does no harm.
    pub fn forget(&self) -> Result<(), Error> {
        Ok(Record::remove(&self.bundle)?)
    }
}

/// By force. It may have ended by itself, and whoever calls has an error to tell already.
fn end(process: &Process) {
    let _ = process.signal(libc::SIGKILL);
    let _ = process.wait();
}

fn start(exe: &Executable, sandbox: &plan::Sandbox) -> Result<(Process, OwnedFd), Error> {
    let (control, theirs) = message::pair().map_err(io("making the sandbox's socket"))?;
    let request = wire::memfd(sandbox).map_err(io("writing the sandbox's request"))?;
    let null = spawn::dev_null().map_err(io("opening /dev/null"))?;
    let id = CString::new(sandbox.container.id.as_str()).map_err(|error| io("naming the sandbox")(error.into()))?;
    let argv = [c"containerd-shim-nucleus-v2", c"pause", c"-id", id.as_c_str()];
    let null = null.as_fd();
    let fds = [null, null, null, theirs.as_fd(), request.as_fd()];
    let (pid, pidfd) = spawn::spawn(exe.fd(), &argv, &fds).map_err(io("starting the sandbox's process"))?;
    let maker = Process::new(pid, pidfd);
    drop((theirs, request));
    // Its words and the maker's come in any order.
    let mut first: Option<Process> = None;
    let mut is_ready = false;
    let forks = sandbox.container.namespaces.pid != Namespace::Host;
    let ready = loop {
        if is_ready && (first.is_some() || !forks) {
            break Ok(());
        }
        match wire::receive(&control).map_err(io("hearing from the sandbox's process")) {
            Ok(Some(message)) if message.tag == Tag::Forked => match forked(message) {
                Ok(process) => first = Some(process),
                Err(error) => break Err(error),
            },
            Ok(Some(Message { tag: Tag::Ready, .. })) => is_ready = true,
            Ok(Some(Message {
                tag: Tag::Failed,
                payload,
                ..
            })) => break Err(Error::Setup(String::from_utf8_lossy(&payload).into_owned())),
            Ok(Some(message)) => {
                break Err(Error::Setup(format!(
                    "unexpected message {:?} from the sandbox's process",
                    message.tag
                )));
            }
            Ok(None) => {
                break Err(Error::Ended {
                    who: "sandbox's process",
                    id: sandbox.container.id.clone(),
                });
            }
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = ready {
        for process in [Some(&maker), first.as_ref()].into_iter().flatten() {
            end(process);
        }
        return Err(error);
    }
    match first {
        Some(process) => {
            maker.wait()?;
            Ok((process, control))
        }
        None => Ok((maker, control)),
    }
}
