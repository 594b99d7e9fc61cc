//! The last steps of every process of a container, init and execs alike: from a fork of the holder to the execve.

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::label::{self, Label};
use super::{executable, identity, passwd};
use crate::plan::Process;
use crate::sys::process;

/// Why a process did not come to its program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("joining the cgroup")]
    Cgroup(#[source] io::Error),
    #[error("becoming a session leader")]
    Session(#[source] io::Error),
    #[error("process.rlimits: setting limit {resource} to {soft}:{hard}")]
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
        source: io::Error,
    },
    #[error("process.oomScoreAdj: writing {score} to /proc/self/oom_score_adj")]
    OomScore { score: i32, source: io::Error },
    #[error("process.scheduler: sched_setattr, policy {policy}, priority {priority}, nice {nice}")]
    Scheduler {
        policy: u32,
        priority: u32,
        nice: i32,
        source: io::Error,
    },
    #[error("process.ioPriority: ioprio_set {0:#x}")]
    IoPriority(i32, #[source] io::Error),
    #[error("linux.personality: personality {0:#x}")]
    Personality(u64, #[source] io::Error),
    #[error("process.execCPUAffinity: {0:?}")]
    Affinity(Vec<u32>, #[source] io::Error),
    #[error("chdir to cwd {cwd:?} set in config.json failed")]
    Cwd { cwd: String, source: io::Error },
    #[error("cwd {0:?} is outside the container's root")]
    CwdOutside(String),
    #[error("giving standard stream {stream} to uid {uid}")]
    Streams { stream: i32, uid: u32, source: io::Error },
    #[error("joining a session keyring")]
    Keyring(#[source] io::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Label(#[from] label::Error),
    #[error(transparent)]
    Executable(#[from] executable::Error),
    #[error("a NUL byte in process.{0}")]
    Nul(&'static str, #[source] NulError),
    #[error("exec {name:?}")]
    Execute { name: String, source: io::Error },
}

/// A process that is all that it is to be, but for its program.
pub struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
    labels: Vec<Label>,
}

/// Puts this process, and it alone, into the cgroups behind `join`, files that take "0" for oneself.
pub fn join_cgroups(join: &[OwnedFd]) -> Result<(), Error> {
    for file in join {
        rustix::io::write(file, b"0").map_err(|errno| Error::Cgroup(errno.into()))?;
    }
    Ok(())
}

/// A session of its own; a session keyring, unless the shim was told otherwise.
pub fn leave_session(container_id: &str, keyring: bool) -> Result<(), Error> {
    rustix::process::setsid().map_err(|errno| Error::Session(errno.into()))?;
    if keyring {
        // Named as runc does: an exec finds the container's keyring again.
        let name = CString::new(format!("_ses.{container_id}")).map_err(|error| Error::Nul("id", error))?;
        match process::join_session_keyring(&name) {
            // Kernels without keyrings, sandboxes that forbid them.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                return Err(Error::Keyring(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The limits that a process may set itself. Not in a user namespace: there the shim does it from outside.
pub fn set_limits(proc: BorrowedFd<'_>, plan: &Process) -> Result<(), Error> {
    for limit in &plan.rlimits {
        process::set_rlimit(0, limit).map_err(|source| Error::Rlimit {
            resource: limit.resource,
            soft: limit.soft,
            hard: limit.hard,
            source,
        })?;
    }
    if let Some(score) = plan.oom_score_adj {
        let write = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(proc, c"self/oom_score_adj", flags, Mode::empty())?;
            rustix::io::write(&file, score.to_string().as_bytes())?;
            Ok(())
        };
        write().map_err(|source| Error::OomScore { score, source })?;
    }
    Ok(())
}

/// Everything between the cgroups and the execve; `root` is the container's root directory, `proc` the host's /proc.
pub fn prepare(root: BorrowedFd<'_>, proc: BorrowedFd<'_>, plan: &Process) -> Result<Prepared, Error> {
    if let Some(scheduler) = &plan.scheduler {
        process::set_scheduler(scheduler).map_err(|source| Error::Scheduler {
            policy: scheduler.policy,
            priority: scheduler.priority,
            nice: scheduler.nice,
            source,
        })?;
    }
    if let Some(priority) = plan.io_priority {
        process::set_io_priority(priority).map_err(|source| Error::IoPriority(priority, source))?;
    }
    if let Some(persona) = plan.personality {
        process::set_personality(persona).map_err(|source| Error::Personality(persona, source))?;
    }
    if let Some(cpus) = plan.cpu_affinity.as_ref().and_then(|affinity| affinity.last.as_deref()) {
        set_affinity(cpus)?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask.unwrap_or(0o022)));
    give_streams(plan.uid)?;
    // The home directory is the untrusted image's word; reading it needs root's view of the file.
    let home = match plan.env.iter().any(|entry| entry.starts_with("HOME=")) {
        true => None,
        false => Some(passwd::home(root, plan.uid)),
    };
    let labels = label::open(proc, plan)?;
    // As root first, since the user may lack the right to walk there; else as the user, who may have what root lacks
    // (NFS).
    let early = change_directory(&plan.cwd);
    identity::assume(plan)?;
    if early.is_err() {
        change_directory(&plan.cwd)?;
    }
    let name = plan.args.first().map_or("", String::as_str);
    let search = plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let path = executable::find(name, search)?;
    let path = CString::new(path.into_os_string().into_encoded_bytes()).map_err(|error| Error::Nul("args", error))?;
    let strings = |field, list: &[String]| -> Result<Vec<CString>, Error> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|error| Error::Nul(field, error)))
            .collect()
    };
    let mut env = strings("env", &plan.env)?;
    if let Some(home) = home {
        env.push(CString::new(format!("HOME={home}")).map_err(|error| Error::Nul("env", error))?);
    }
    Ok(Prepared {
        path,
        args: strings("args", &plan.args)?,
        env,
        name: name.to_owned(),
        labels,
    })
}

/// Becomes the program; returns only an error.
pub fn execute(prepared: &Prepared, plan: &Process, socket: &OwnedFd) -> Error {
    let failed = |source| Error::Execute {
        name: prepared.name.clone(),
        source,
    };
    for label in &prepared.labels {
        if let Err(error) = label.set() {
            return error.into();
        }
    }
    // Whatever fd there is that has no flag of its own: none may reach the program (CVE-2024-21626).
    if let Err(source) = process::close_on_exec_from(3) {
        return failed(source);
    }
    let args: Vec<_> = prepared.args.iter().map(CString::as_c_str).collect();
    let env: Vec<_> = prepared.env.iter().map(CString::as_c_str).collect();
    let confine = || identity::confine(plan, Some(socket));
    match process::execute(&prepared.path, &args, &env, confine) {
        Ok(source) => failed(source),
        Err(error) => error.into(),
    }
}

/// sched_setaffinity(2) for one of execCPUAffinity's lists.
pub fn set_affinity(cpus: &[u32]) -> Result<(), Error> {
    process::set_affinity(cpus).map_err(|source| Error::Affinity(cpus.to_vec(), source))
}

/// chdir, then the proof that the kernel names the directory with an absolute path: a cwd reached through a leaked fd
/// is named "(unreachable)…" or not at all (CVE-2024-21626).
fn change_directory(cwd: &str) -> Result<(), Error> {
    rustix::process::chdir(cwd).map_err(|errno| Error::Cwd {
        cwd: cwd.to_owned(),
        source: errno.into(),
    })?;
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Error::CwdOutside(cwd.to_owned())),
    }
}

/// The standard streams belong to the user, so that /dev/stdout can be opened again; not /dev/null, which is
/// everybody's.
fn give_streams(uid: u32) -> Result<(), Error> {
    let null = rustix::fs::makedev(1, 3);
    for stream in 0..3 {
        let fd = process::standard_stream(stream);
        let stat = rustix::fs::fstat(fd).map_err(|errno| Error::Streams {
            stream,
            uid,
            source: errno.into(),
        })?;
        if stat.st_rdev == null || stat.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(fd.as_fd(), Some(rustix::fs::Uid::from_raw(uid)), None) {
            // Not ours to give: sockets, files of a file system that is read-only or not mapped here. As runc does.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
            Err(errno) => {
                return Err(Error::Streams {
                    stream,
                    uid,
                    source: errno.into(),
                });
            }
        }
    }
    Ok(())
}
