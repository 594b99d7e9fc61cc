//! The Plan's vocabulary: plain data, the kernel's own numbers where the kernel is the reader.

use std::path::PathBuf;

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use super::Domain;
use crate::policy::{Policy, Reach};
use crate::security::seccomp::Filter;

/// Everything about one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The hardened OCI spec: still valid for any runtime.
    pub spec: oci::Spec,
    /// `linux.cgroupsPath`, cleaned, or what it defaults to: `/<id>`. A relative path is below the shim's own cgroup.
    pub cgroup: String,
    /// Capabilities that a process of this container can have at most, one bit each: the host's, or every one in a user
    /// namespace of the container's own.
    pub capability_limit: u64,
    /// What the node demands of it, as far as `spec` can say it already carried out there.
    pub policy: Policy,
    /// What the host can label processes with: an exec may name another profile.
    #[serde(default)]
    pub lsms: Lsms,
    /// What the holder needs.
    pub container: Container,
    /// What init needs.
    pub process: Process,
}

/// What the holder needs to make the container's surroundings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Container {
    /// The container's id.
    pub id: String,
    /// The bundle directory, absolute: also the cwd of hooks.
    pub bundle: PathBuf,
    /// The spec's annotations: part of the state that hooks read.
    pub annotations: Vec<(String, String)>,
    /// Namespaces made or joined.
    pub namespaces: Namespaces,
    /// The root file system.
    pub rootfs: Rootfs,
    /// In the spec's order.
    pub mounts: Vec<Mount>,
    /// The SELinux context of what is mounted beside them: the masks of directories.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Nodes to be made in /dev: the default ones, then the spec's. Empty where /dev comes from the host by bind.
    pub devices: Vec<Device>,
    /// Whether the default links (/dev/fd, /dev/stdin, /dev/ptmx …) are to be made: not where /dev is a bind mount.
    pub default_dev: bool,
    /// Paths to be made unreadable.
    pub masked_paths: Vec<String>,
    /// Paths to be made read-only.
    pub readonly_paths: Vec<String>,
    /// uname's nodename; only with a UTS namespace of its own.
    pub hostname: Option<String>,
    /// uname's domainname; only with a UTS namespace of its own.
    pub domainname: Option<String>,
    /// Files below /proc/sys, as relative paths (`net/ipv4/ip_forward`), and their values.
    pub sysctls: Vec<(String, String)>,
    /// The hooks.
    pub hooks: Hooks,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// A process of ours is its first, and the workload that one's child.
    #[serde(default)]
    pub init: bool,
    /// A mount table that is not as it was meant is an error.
    #[serde(default)]
    pub refuse_differences: bool,
    /// Bind sources that give the host away are refused, wherever links lead ([`crate::policy::gives_away`]).
    pub refuse_host_paths: bool,
    /// What may leave the network namespace; None: everything.
    #[serde(default)]
    pub egress: Option<Vec<Reach>>,
    /// The Landlock domain of init and of every exec'd process.
    pub domain: Option<Domain>,
}

impl Container {
    /// What the spec's annotation of this name says.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let found = self.annotations.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How a container stands to one kind of namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// The host's (the shim's) own.
    #[default]
    Host,
    /// A new one.
    New,
    /// An existing one, by path.
    Path(PathBuf),
}

/// Every kind of namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub user: Namespace,
    /// New or by path; a spec without a mount namespace is refused.
    pub mount: Namespace,
    pub pid: Namespace,
    pub net: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub cgroup: Namespace,
    pub time: Namespace,
    /// uid map of a new user namespace. Where one is joined, what the spec claims its map to be (containerd sends
    /// both): to be compared, never to be written.
    pub uid_map: Vec<IdMap>,
    /// gid map of a new user namespace.
    pub gid_map: Vec<IdMap>,
    /// Lines for /proc/pid/timens_offsets: clock id, seconds, nanoseconds.
    pub time_offsets: Vec<(u32, i64, u32)>,
}

/// One line of user_namespaces(7)' uid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// One mount of the rootfs, as a snapshotter gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMount {
    /// File system type: overlay, bind, erofs, …
    pub kind: String,
    /// Source: a directory, a device, or a name.
    pub source: String,
    /// Below the rootfs; empty for the rootfs itself.
    pub target: String,
    /// mount(8)'s options.
    pub options: Vec<String>,
}

/// The root file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rootfs {
    /// Where it is mounted before the pivot, absolute: `<bundle>/rootfs`, or `root.path` if that is absolute.
    pub path: PathBuf,
    /// What is mounted there, translated; empty: the directory is taken as it is.
    pub mounts: Vec<Mount>,
    /// `root.readonly`.
    pub readonly: bool,
    /// Propagation of the container's whole tree seen from the container: `linux.rootfsPropagation` (MS_* flags, with
    /// MS_REC). Default: MS_SLAVE|MS_REC… as runc: rslave before set-up, then the spec's on `/` after the pivot.
    pub propagation: Option<u64>,
}

/// One mount in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, cleaned, no `..`; resolved only below the rootfs.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of this mount alone: the kernel's MOUNT_ATTR_* bits to set.
    pub set: u64,
    /// MOUNT_ATTR_* bits to clear (`suid`, `dev`, `exec`, `rw` after a negative one, and the atime group).
    pub clear: u64,
    /// The same for it and everything below (rro, rnosuid, …): mount_setattr(AT_RECURSIVE).
    pub recursive_set: u64,
    /// Bits to clear, recursively.
    pub recursive_clear: u64,
    /// Propagation to be set afterwards, in order: MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, perhaps with MS_REC.
    pub propagation: Vec<u64>,
    /// File system options, each `key` or `key=value`; none for a bind.
    pub data: Vec<String>,
    /// Superblock flags that fsconfig takes by name: `sync`, `dirsync`, `mand`, `lazytime`; and `ro` where a device or
    /// a file is mounted (other superblocks are shared between containers: read-only is then the mount's own
    /// attribute).
    pub superblock: Vec<String>,
    /// tmpfs: copy what the image has at the destination into it.
    pub copy_up: bool,
    /// What is mounted is a copy in memory, which belongs to this user and group of the host's.
    #[serde(default)]
    pub in_memory: Option<(u32, u32)>,
    /// What is mounted is a copy in memory, as it is, whose digest has to be this one.
    #[serde(default)]
    pub digest: Option<String>,
    /// Map the mount's ids: of a bind, of a rootfs mount; of a rootfs that is an overlay, those of its lower
    /// directories.
    pub idmap: Option<MountIdMap>,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A host path, with everything mounted below it if `recursive`.
    Bind {
        /// Absolute, or relative to the bundle.
        path: PathBuf,
        /// rbind
        recursive: bool,
    },
    /// A new instance of a file system.
    New {
        /// tmpfs, proc, sysfs, mqueue, devpts, overlay, …
        kind: String,
        /// The source's name.
        source: String,
    },
    /// What another mount namespace has for its root: the memory that the containers of a pod share.
    NamespaceRoot {
        /// The namespace.
        path: PathBuf,
    },
    /// The container's view of its cgroups: cgroup2 mount, or a tmpfs with one mount a v1 hierarchy.
    Cgroup,
}

impl Default for MountSource {
    fn default() -> Self {
        Self::Bind {
            path: PathBuf::new(),
            recursive: false,
        }
    }
}

/// An idmapped mount: see mount_setattr(2), MOUNT_ATTR_IDMAP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MountIdMap {
    /// ridmap: everything below too.
    pub recursive: bool,
    /// The mount's own maps; empty: those of the container's user namespace.
    pub uid_map: Vec<IdMap>,
    /// As `uid_map`.
    pub gid_map: Vec<IdMap>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    /// Device numbers.
    pub major: u32,
    /// Device numbers.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container numbers it.
    pub uid: u32,
    /// Group, as the container numbers it.
    pub gid: u32,
}

/// The six kinds of hooks, see the OCI runtime spec, "POSIX-platform Hooks".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// argv, the name included; empty: the path alone.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: u32,
}

/// A process of the container: init and execs alike.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Process {
    /// argv; not empty.
    pub args: Vec<String>,
    /// The whole environment; HOME is added as runc does where it is missing (from the container's /etc/passwd).
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// Credentials, as the container numbers them.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, exactly.
    pub groups: Vec<u32>,
    /// File mode creation mask; None: 0022 is left as inherited by the runtime's default.
    pub umask: Option<u32>,
    /// The five sets, one bit a capability (capabilities(7)). A translated process always has them: a spec without
    /// capabilities means none at all (an exec without takes the container's).
    pub capabilities: Option<Capabilities>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// The AppArmor profile and the SELinux label that the program runs under; None leaves what the shim has.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// As above.
    #[serde(default)]
    pub selinux_label: Option<String>,
    /// PR_SET_MDWE: no memory becomes executable that could be written to.
    pub deny_write_execute: bool,
    /// What of the kernel the program may call: the container's, for init and execs alike. In the order in which they
    /// are to be loaded: each but the last lets seccomp(2) pass.
    pub seccomp: Vec<Filter>,
    /// Who answers for the calls that one of the filters asks about.
    #[serde(default)]
    pub listener: Option<Listener>,
    /// setrlimit(2).
    pub rlimits: Vec<Rlimit>,
    /// /proc/self/oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// A new pseudo terminal is its stdio and controlling terminal.
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// sched_setattr(2).
    pub scheduler: Option<Scheduler>,
    /// ioprio_set(2): class << 13 | priority.
    pub io_priority: Option<i32>,
    /// personality(2); the container's own for init, inherited by execs.
    pub personality: Option<u64>,
    /// execCPUAffinity: cpus before it joins the cgroup, and after.
    pub cpu_affinity: Option<CpuAffinity>,
}

/// Who answers for the calls that a filter asks about (SECCOMP_RET_USER_NOTIF).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listener {
    /// An agent of the node's.
    Agent {
        /// `linux.seccomp.listenerPath`: its socket.
        path: PathBuf,
        /// `linux.seccomp.listenerMetadata`: told beside the container's state.
        metadata: String,
    },
    /// The shim, which lets every call pass and writes down which there were.
    Recorder {
        /// Where the profile goes.
        directory: PathBuf,
    },
}

/// Security modules of the host that label processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Lsms {
    pub apparmor: bool,
    pub selinux: bool,
}

/// One bit a capability, by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// One limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Rlimit {
    /// RLIMIT_*.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// struct sched_attr of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// execCPUAffinity of the OCI spec, as lists of cpus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAffinity {
    /// Before the process joins the container's cgroup.
    pub initial: Option<Vec<u32>>,
    /// After it did.
    pub last: Option<Vec<u32>>,
}
