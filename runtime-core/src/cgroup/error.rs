//! Why an operation on a cgroup failed.

use std::path::PathBuf;

use rustix::io::Errno;

/// Why an operation on a cgroup failed. Files and directories are named by their full path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    #[error(transparent)]
    Systemd(#[from] super::systemd::Error),
    #[error("cgroups path {path:?} is a scope of systemd's, and no process was given to put into it")]
    NoMember { path: String },
    #[error("{file}: cannot make sense of {line:?}")]
    HostFile { file: &'static str, line: String },
    #[error("cgroups path {path:?} {fault}")]
    Path { path: String, fault: &'static str },
    #[error(
        "cgroups path {path:?} is relative, but our own {controllers} cgroup {own:?} is not below the mounted part \
         {root:?}"
    )]
    OwnCgroup {
        path: String,
        controllers: String,
        own: String,
        root: String,
    },
    #[error("cannot set {setting}: the cgroup controller {controller} is not mounted")]
    NotMounted {
        controller: &'static str,
        setting: &'static str,
    },
    #[error("the devices cgroup controller is not mounted, so the container's device access cannot be limited")]
    NoDevices,
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("cannot write {value:?} to {}", file.display())]
    Write {
        file: PathBuf,
        value: String,
        #[source]
        source: Errno,
    },
    #[error("{}: cannot make sense of {line:?}", file.display())]
    Content { file: PathBuf, line: String },
    #[error("{} lists {count} process(es): the cgroup of a new container must be empty", file.display())]
    Busy { file: PathBuf, count: usize },
    #[error("{} says {state}: the cgroup of a new container must not be frozen", file.display())]
    AlreadyFrozen { file: PathBuf, state: String },
    #[error("{setting} {value}: {fault}")]
    Value {
        setting: &'static str,
        value: String,
        fault: &'static str,
    },
    #[error("cannot write {value} to {}: {usage} bytes are in use", file.display())]
    MemoryInUse { file: PathBuf, value: i64, usage: u64 },
    #[error("{field} cannot be set on this host: cgroup v2 has no such limit")]
    NotOnV2 { field: &'static str },
    #[error("resources.unified {key:?} {fault}")]
    Unified { key: String, fault: &'static str },
    #[error(
        "cannot set {field}: the controller {controller} is not enabled for {}; it has to be in \
         cgroup.subtree_control of \
         every cgroup above, none of which may hold processes",
        directory.display()
    )]
    NotEnabled {
        controller: String,
        field: &'static str,
        directory: PathBuf,
    },
    #[error("{} says {kind:?}: a container needs a domain, and the cgroup above is threaded", file.display())]
    Threaded { file: PathBuf, kind: String },
    #[error("cannot {operation} the program of the device rules of {}", directory.display())]
    Devices {
        operation: &'static str,
        directory: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("resources.unified {key:?} is for cgroup v2: this host has cgroup v1")]
    UnifiedOnV1 { key: String },
    #[error("device rule {rule}: {fault}")]
    DeviceRule { rule: String, fault: &'static str },
    #[error("{} still says {state} after {milliseconds} ms: thawed again", file.display())]
    FreezeTimeout {
        file: PathBuf,
        state: String,
        milliseconds: u128,
    },
    #[error("the cgroup {} is gone", directory.display())]
    Gone { directory: PathBuf },
    #[error("we are in cgroup {} ourselves: it is no container's", directory.display())]
    Ourselves { directory: PathBuf },
    #[error("there is no signal {signal}")]
    Signal { signal: i32 },
    #[error("cannot send signal {signal} to process {pid}")]
    Send {
        signal: i32,
        pid: i32,
        #[source]
        source: Errno,
    },
    #[error("processes {pids:?} of {} are still there after SIGKILL", directory.display())]
    Survivors { directory: PathBuf, pids: Vec<i32> },
    #[error("cannot remove {}: it holds processes {pids:?} and cgroups {children:?}", directory.display())]
    NotRemoved {
        directory: PathBuf,
        pids: Vec<i32>,
        children: Vec<String>,
    },
}
