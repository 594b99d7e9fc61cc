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
    #[error("this host has cgroup v2 alone, which is not supported yet: cgroup v1 or hybrid is needed")]
    V2Unsupported,
    #[error("cgroups path {path:?} is systemd's slice:prefix:name, and the systemd driver is not supported yet")]
    SystemdUnsupported { path: String },
    #[error("{file}: cannot make sense of {line:?}")]
    HostFile { file: &'static str, line: String },
    #[error("cgroups path {path:?} {fault}")]
    Path { path: String, fault: &'static str },
    #[error(
        "cgroups path {path:?} is relative, but our own {controllers} cgroup {own:?} is not below the mounted part {root:?}"
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
