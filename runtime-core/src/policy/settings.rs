//! Every setting there is: its name, type, defaults, and whether a pod may tighten it.

use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::egress::Egress;
use super::landlock::{Ports, Scopes, Trees};
use super::pins::{Directory, Pins};
use super::program::{Digest, Flags, Paths};
use super::resolve::decide;
use super::secrets::Secrets;
use super::values::{
    CapabilityLimit, EmptyDir, FileAccess, Given, HostPaths, Lockdown, Mode, MountAudit, Names, Network, Overlay,
    Platform, Proc, Runtime, SeccompMode, Tier, Value,
};
use super::volumes::VolumeDigests;
use super::{Decided, Error, nearest};

/// What is known of one setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// As it is written.
    pub name: &'static str,
    /// What it does, in Markdown.
    pub about: &'static str,
    /// What its values are.
    pub expected: &'static str,
    /// Whether a pod may tighten it, by an annotation.
    pub for_pods: bool,
    /// Its default in agent mode, as it is written.
    pub agent: fn() -> String,
    /// Its default in production mode, as it is written.
    pub production: fn() -> String,
}

/// `"name" field: Type, agent's default, production's default, for pods or not`.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $name:literal $field:ident: $type:ty, $agent:expr, $production:expr, $for_pods:expr;
    )+) => {
        /// What holds for one container: each setting's value, and who decided it.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Policy {
            $($(#[doc = $about])+ pub $field: Decided<$type>,)+
        }

        /// What one layer says; most layers say nothing of most settings.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Layer {
            $(pub(super) $field: Option<$type>,)+
        }

        /// All settings, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            about: concat!($($about, "\n"),+),
            expected: <$type as Value>::EXPECTED,
            for_pods: $for_pods,
            agent: || $agent.to_string(),
            production: || $production.to_string(),
        }),+];

        impl Layer {
            /// Sets the setting `name`; `place` says where that was written.
            pub fn set(&mut self, place: &dyn std::fmt::Display, name: &str, given: Given<'_>) -> Result<(), Error> {
                match name {
                    $($name => {
                        let value = <$type as Value>::parse(given).ok_or_else(|| Error::Value {
                            place: place.to_string(),
                            name: $name,
                            expected: <$type as Value>::EXPECTED,
                            given: given.to_string(),
                        })?;
                        if matches!(given, Given::Annotation(_)) && !$for_pods {
                            return Err(Error::NotForPods { name: $name });
                        }
                        self.$field = Some(value);
                    })+
                    _ => return Err(Error::Unknown {
                        place: place.to_string(),
                        name: super::shortened(name).to_owned(),
                        nearest: nearest::nearest(name, SETTINGS.iter().map(|setting| setting.name)),
                    }),
                }
                Ok(())
            }
        }

        impl Policy {
            /// The whole policy, of what the layers say.
            pub(super) fn of(node: &Layer, handler: &Layer, pod: &Layer) -> Result<Self, Error> {
                let given = handler.mode.or(node.mode).unwrap_or(Mode::Agent);
                let modes = (given, pod.mode.map_or(given, |asked| asked.max(given)));
                Ok(Self {
                    $($field: decide(
                        $name,
                        [$agent, $production],
                        [&node.$field, &handler.$field, &pod.$field],
                        modes,
                    )?,)+
                })
            }

            /// Tightens each setting that `layer` has to what it allows too; where that is less, `by` decided it.
            pub(super) fn tighten(&mut self, layer: &Layer, by: super::Origin) {
                $(if let Some(value) = &layer.$field {
                    let value = self.$field.value.stricter(value);
                    if value != self.$field.value {
                        self.$field = Decided { value, from: by };
                    }
                })+
            }

            /// Whether no setting allows what `other` forbids.
            pub fn is_as_strict_as(&self, other: &Self) -> bool {
                true $(&& self.$field.value.is_as_strict_as(&other.$field.value))+
            }

            /// Every setting by its name: its value as it is written, and who decided it.
            pub fn list(&self) -> Vec<(&'static str, String, super::Origin)> {
                vec![$(($name, self.$field.value.to_string(), self.$field.from)),+]
            }
        }
    };
}

/// What production leaves of a container's capabilities: what programs need that start as root and then become somebody
/// else, and that listen on ports below 1024.
const PRODUCTION_CAPABILITIES: CapabilityLimit = CapabilityLimit::Only(
    1 // CAP_CHOWN
    | 1 << 1 // CAP_DAC_OVERRIDE
    | 1 << 3 // CAP_FOWNER
    | 1 << 4 // CAP_FSETID
    | 1 << 5 // CAP_KILL
    | 1 << 6 // CAP_SETGID
    | 1 << 7 // CAP_SETUID
    | 1 << 10, // CAP_NET_BIND_SERVICE
);

fn runsc_paths() -> Paths {
    Paths(vec!["/usr/local/bin/runsc".into(), "/usr/bin/runsc".into()])
}

/// Kubelet's own default, k0s' and MicroK8s'.
fn kubelet_roots() -> Paths {
    Paths(vec![
        "/var/lib/kubelet".into(),
        "/var/lib/k0s/kubelet".into(),
        "/var/snap/microk8s/common/var/lib/kubelet".into(),
    ])
}

fn directory(table: &str) -> Directory {
    Directory(format!("/etc/nucleus/{table}"))
}

settings! {
    /// Which defaults the other settings have. `agent`: what kubelet asked for, plus what no ordinary image notices.
    /// `production`: the stricter defaults that each setting names; what cannot be enforced stops the container.
    "mode" mode: Mode, Mode::Agent, Mode::Production, true;

    /// What runs the containers: `native`, the kernel's own means, or `gvisor`, through `runsc`. A pod chooses by its
    /// RuntimeClass. One of a native handler may ask for `gvisor` too: what the handler claims to kubelet and the
    /// class's overhead are the native runtime's then, and what a sentry cannot have is refused.
    "runtime" runtime: Runtime, Runtime::Native, Runtime::Native, true;

    /// Where `runsc` may be; the first that exists is taken. Every directory of the path and the file itself have to be
    /// root's, writable by root alone, and no symbolic link.
    "gvisor.path" gvisor_path: Paths, runsc_paths(), runsc_paths(), false;

    /// The SHA-256 of the `runsc` that may be run.
    "gvisor.sha256" gvisor_sha256: Digest, Digest::default(), Digest::default(), false;

    /// What a sentry intercepts system calls with.
    "gvisor.platform" gvisor_platform: Platform, Platform::Systrap, Platform::Systrap, false;

    /// Whose network stack the containers of a sandbox use. Pods of the host's network have the host's, unless this is
    /// `none`.
    "gvisor.network" gvisor_network: Network, Network::Sandbox, Network::Sandbox, false;

    /// Whether anybody but its sentry changes a container's root file system while it runs. `exclusive`: nobody does,
    /// and the sentry remembers what it was told. `shared`: the sentry asks the host each time, and there is no
    /// overlay. Volumes are always shared.
    "gvisor.file_access" gvisor_file_access: FileAccess, FileAccess::Exclusive, FileAccess::Exclusive, false;

    /// Where a sentry keeps what a container writes to its root file system. `root:self`: in one file at its top,
    /// `.gvisor.filestore.` and the sandbox's name, which counts for what the pod uses of the node's disk; nothing else
    /// is written to the host. `none`: in the root file system, file by file, for whoever reads or commits a
    /// container's snapshot; each file that is made or removed is then the host's work. `root:memory`: in memory, which
    /// counts for the pod's. A container with masked or read-only paths in its image has `none`. Volumes are written to
    /// in any case.
    "gvisor.overlay2" gvisor_overlay2: Overlay, Overlay::RootSelf, Overlay::RootSelf, false;

    /// Who keeps what is in a pod's emptyDir volumes. `host`: each file is one of the host's, as natively. `sentry`:
    /// the pod's sentry, and making a file costs the host nothing: those of medium `Memory` in its memory, the others
    /// in one file of the volume's directory, `.gvisor.filestore.` and the sandbox's name, which counts for what the
    /// pod uses of the node's disk. The content goes with the sandbox, not only with the pod, and the host sees none of
    /// it. What is not empty when the pod starts, or has a part mounted by `subPath` before anybody mounts the whole,
    /// stays the host's. A pod chooses for each volume, as for gVisor's own shim:
    /// `dev.gvisor.spec.mount.<volume>.share: pod` (or `container`; `shared` leaves it to the host), with
    /// `dev.gvisor.spec.mount.<volume>.type: bind`, or `tmpfs` for one that is in memory whatever its medium.
    "gvisor.empty_dir" gvisor_empty_dir: EmptyDir, EmptyDir::Host, EmptyDir::Host, false;

    /// Kubelet's root directories, in which the pods' emptyDir volumes are looked for.
    "gvisor.kubelet_root" gvisor_kubelet_root: Paths, kubelet_roots(), kubelet_roots(), false;

    /// A directory for the sentries' debug logs; each pod has one of its name below the one of its namespace, which
    /// stays when the pod goes. It has to be root's, writable by root alone. Logs show what workloads do.
    "gvisor.debug_log" gvisor_debug_log: Directory, Directory::default(), Directory::default(), false;

    /// More flags for runsc, as `name=value`: of those that weaken nothing, each of which [gvisor.md](gvisor.md) names.
    /// Any other is refused.
    "gvisor.flags" gvisor_flags: Flags, Flags::default(), Flags::default(), false;

    /// Sets no_new_privs on every process, whatever the pod says (`allowPrivilegeEscalation`): no set-user-ID program
    /// and no file capability gives anything.
    "no_new_privs" no_new_privs: bool, false, true, true;

    /// The capabilities that a process can have at most. Those that a pod asks for beyond are taken out of each of its
    /// sets, the bounding set too; exec'd processes are cut the same way.
    "capabilities.allow" capabilities: CapabilityLimit, CapabilityLimit::Unlimited, PRODUCTION_CAPABILITIES, true;

    /// Policy files of capabilities: each name is a file of `capabilities.directory`, `<name>.toml`, that
    /// `capabilities.pinned` has the digest of. It says what `capabilities.allow` could (`allow = ["CAP_CHOWN"]`), and
    /// cuts what else is allowed.
    "capabilities.profile" capabilities_profile: Names, Names::default(), Names::default(), true;

    /// Where the files of `capabilities.profile` are. Each has to be root's and writable by nobody else, and no
    /// symbolic link.
    "capabilities.directory" capabilities_directory: Directory,
        directory("capabilities"), directory("capabilities"), false;

    /// The files that `capabilities.profile` may name, each with its content's SHA-256: `["web=sha256:…"]`.
    "capabilities.pinned" capabilities_pinned: Pins, Pins::default(), Pins::default(), false;

    /// What Landlock denies init and every exec'd process. `baseline`: mounting, moving and remounting, also in a user
    /// namespace of the workload's own; tracing what is outside the container; and, on the host's network, the host's
    /// abstract sockets. A container gets no domain where its spec asks for what any would deny it (CAP_SYS_ADMIN,
    /// shared mount propagation, /dev/fuse), where it joins another's PID namespace, or has CAP_SYS_PTRACE in the
    /// host's, and on kernels before 5.19.
    ///
    /// `hardened`: the domain is there in any case, or the container is refused; abstract sockets made outside the
    /// container are out of reach on any network; and what the workload can write to beside its root file system (every
    /// tmpfs, writable volumes), as well as Secret volumes, is mounted noexec.
    ///
    /// `strict`: all of that, and on top of it, by Landlock (ABI 6, Linux 6.12, or the container is refused): no TCP
    /// connection is made but to the ports of `landlock.tcp_connect`, none where nobody set it, over loopback either;
    /// every port can be listened at, unless `landlock.tcp_bind` says which; the devices that the container was given
    /// take ioctls, and no others; with a read-only root, nothing is written to but the mounts that are writable; and
    /// no signal leaves a PID namespace of the container's own.
    ///
    /// The settings `landlock.…` below add rules to any tier but `none`; a container that can have no domain is refused
    /// then.
    "landlock.tier" landlock_tier: Tier, Tier::Baseline, Tier::Hardened, true;

    /// Where files can be opened for reading, and directories listed. What is executed has to be readable too. The
    /// container's own devices and terminals always are.
    ///
    /// Paths are the container's, with all its mounts, and have to be there, unless a `-` is in front of them. A
    /// symbolic link among them is refused, unless the list covers where it leads: what a link of the image's means is
    /// not the node's choice. A rule holds for all that is below its path, volumes too. `/proc` can be named, nothing
    /// in it; that takes Linux 6.17 (on older kernels nothing of it is allowed where `/` is not). Hooks of the kind
    /// startContainer are held to it, a pod's sandbox is not: its program is no workload. A pod's list has to be
    /// covered by the list that it tightens.
    "landlock.read" landlock_read: Trees, Trees::Any, Trees::Any, true;

    /// Where files can be written to, cut, made, removed, linked and renamed (ABI 3, Linux 6.2). Paths are as for
    /// `landlock.read`; a file among them can be written to, and loses its rule when another one is renamed to its
    /// name.
    "landlock.write" landlock_write: Trees, Trees::Any, Trees::Any, true;

    /// Where programs can be executed, and interpreters: a dynamic program needs its loader among them, `/lib64` for
    /// one. Code that a loader maps, or a script that is given to a shell, is not executed in that sense: noexec mounts
    /// stop the former. Paths are as for `landlock.read`.
    "landlock.execute" landlock_execute: Trees, Trees::Any, Trees::Any, true;

    /// The TCP ports that can be listened at (ABI 4, Linux 6.7); 0 is for those that the kernel chooses.
    "landlock.tcp_bind" landlock_tcp_bind: Ports, Ports::Any, Ports::Any, true;

    /// The TCP ports that can be connected to, at any address, loopback too (ABI 4, Linux 6.7). UDP is not held back:
    /// see `egress`. Where the tier is `strict`, nothing set means none. A list of either kind of ports brings a filter
    /// of system calls that denies the ways past it: MPTCP and SMC, connecting by sending (MSG_FASTOPEN), io_uring, and
    /// i386's socketcall(2).
    "landlock.tcp_connect" landlock_tcp_connect: Ports, Ports::Any, Ports::Any, true;

    /// Which of the devices that the container was given, the usual ones and those of its spec, take ioctls (ABI 5,
    /// Linux 6.10): those at these paths or below them, and terminals. Other devices take none then.
    "landlock.ioctl" landlock_ioctl: Trees, Trees::Any, Trees::Any, true;

    /// What does not leave the container's processes (ABI 6, Linux 6.12): connections to abstract sockets that were
    /// made outside, and signals. `signal` is refused for containers that share a PID namespace: their pod's processes
    /// signal each other.
    "landlock.scope" landlock_scope: Scopes, Scopes::default(), Scopes::default(), true;

    /// Policy files of Landlock: each name is a file of `landlock.directory`, `<name>.toml`, that `landlock.pinned` has
    /// the digest of. It says what the settings `landlock.…` above could, without the table's name (`tier = "strict"`,
    /// `write = ["/data"]`), and holds beside them: what either denies is denied.
    "landlock.profile" landlock_profile: Names, Names::default(), Names::default(), true;

    /// Where the files of `landlock.profile` are. Each has to be root's and writable by nobody else, and no symbolic
    /// link.
    "landlock.directory" landlock_directory: Directory, directory("landlock"), directory("landlock"), false;

    /// The files that `landlock.profile` may name, each with its content's SHA-256: `["web=sha256:…"]`.
    "landlock.pinned" landlock_pinned: Pins, Pins::default(), Pins::default(), false;

    /// Filters of system calls that hold beside the one of the container's spec: what any of them denies is denied, for
    /// init and for exec'd processes. `strict` is built in: what servers and tools need of their machine's own
    /// architecture, without namespaces, tracing, devices, and sockets other than Unix ones, those of the internet and
    /// rtnetlink's. Any other name is a file of `seccomp.directory`, `<name>.json`, an OCI profile that
    /// `seccomp.pinned` has the digest of.
    "seccomp.profile" seccomp_profile: Names, Names::default(), Names::default(), true;

    /// Where the files of `seccomp.profile` are. Each has to be root's and writable by nobody else, and no symbolic
    /// link.
    "seccomp.directory" seccomp_directory: Directory, directory("seccomp"), directory("seccomp"), false;

    /// The profiles that `seccomp.profile` may name, each with its content's SHA-256: `["web=sha256:…"]`.
    "seccomp.pinned" seccomp_pinned: Pins, Pins::default(), Pins::default(), false;

    /// Tells the kernel's audit log of every call that a filter denies (SECCOMP_FILTER_FLAG_LOG): in `dmesg`, where no
    /// audit daemon takes it.
    "seccomp.log_denied" seccomp_log_denied: bool, false, false, false;

    /// Before a container starts, its mount table is read back from the kernel and compared with what was meant: each
    /// mount there, with its flags, private unless sharing was asked for, and none besides but what hooks may have
    /// mounted. `refuse`: a difference is an error. `report`: it is logged, and an event of the audit trail. In gVisor
    /// the table is the sentry's own.
    "mount_audit" mount_audit: MountAudit, MountAudit::Report, MountAudit::Refuse, true;

    /// Where the audit trail goes: to `"journal"`, journald, or to a file, made with mode 0600 where it is not there;
    /// it may be rotated at any time. One JSON object a line: `schema` (1), `time`, `event` (`create`, `exec`,
    /// `mounts`), `namespace`, `group`, `container`, `process`, `decision` (`allowed`, `refused`, `failed`, `differs`),
    /// `control` (the setting that refused), `reason`, and for a container that is allowed each setting that is not at
    /// its default, with who decided it. What cannot be written down is not done.
    "audit" audit: Audit, Audit::None, Audit::None, false;

    /// What the image's layers have to be: `sha256:` and the digest of a tree of hashes over their names, kinds, modes,
    /// owners, links, content and capabilities, which is the same on every node. It is computed, in the time that it
    /// takes to read the layers, before anything of the container is made; where it differs, the error says both. For
    /// root file systems that are overlays of layers; others are refused. Nothing is kept from one container to the
    /// next, since nothing on a node says reliably that a layer is what it was. fs-verity's digests are not used: not
    /// every node's file system has them, and the digest is to be the same on all.
    "rootfs_digest" rootfs_digest: Digest, Digest::default(), Digest::default(), true;

    /// What read-only volumes have to be, each with a digest as `rootfs_digest`'s; `nucleus digest <directory>` prints
    /// it. A pod may also write `nucleus.dev/volume-digest.<name>: sha256:…` for each. The volume is copied into a file
    /// system in memory that is the container's own, the copy is compared, and the container is given the copy: what is
    /// changed in the volume later does not reach it. At most 64 MiB and 16384 entries a mount; a FIFO, a socket or a
    /// device in it is an error.
    ///
    /// A volume's name is that of its directory below kubelet's `pods/<uid>/volumes/<plugin>/`: as in the pod, but for
    /// persistent ones, which have their PersistentVolume's. Another is named by the path at which containers mount it,
    /// as is a part that is mounted by `subPath`; that counts in each container that has such a mount. A name that the
    /// pod has no volume of is an error, and so is a mount of it that is writable. Of a ConfigMap's or a Secret's
    /// volume the files count, not the links to them, whose names say when kubelet wrote them.
    "volume_digest" volume_digest: VolumeDigests, VolumeDigests::default(), VolumeDigests::default(), true;

    /// `record` writes down which system calls init and exec'd processes make, as an OCI profile that allows those and
    /// no other, to `<namespace>-<id>.json` in `seccomp.record_to` when the container is deleted. Every call passes
    /// through the shim meanwhile, which is slow; the container's own filters hold as they do otherwise. The annotation
    /// may be written `nucleus.dev/seccomp: record`. Native runtime alone; Linux 5.19.
    "seccomp.mode" seccomp_mode: SeccompMode, SeccompMode::Enforce, SeccompMode::Enforce, true;

    /// The directory for recorded profiles: root's, and writable by nobody else. Without one nothing can be recorded.
    "seccomp.record_to" seccomp_record_to: Directory, Directory::default(), Directory::default(), false;

    /// Refuses every bind mount that gives the host away, whatever links lead there: `/`, `/proc`, `/sys`, `/dev`,
    /// `/boot`, the state and sockets of container runtimes, kubelet's credentials, and every directory above one of
    /// these. Not what kubelet and containerd themselves bring into each container, such as its hosts file, its
    /// volumes, and the pod's /dev/shm.
    "host_paths" host_paths: HostPaths, HostPaths::Allow, HostPaths::Refuse, true;

    /// `memory`: Secret volumes are copied, before the container starts, into a file system in memory that is the
    /// container's own and is never written to swap; it is read-only, noexec, nosuid and nodev, its files are the
    /// workload's user's with mode 0400, and 8 MiB is the most that it takes. A list of mount points does the same for
    /// what is mounted there, in each container of the pod that has such a mount: for projected volumes, and for a
    /// Secret's `subPath`, which cannot be told from other files. What is changed in the Secret later does not reach
    /// the container: it has to be restarted.
    "secrets" secrets: Secrets, Secrets::Mount, Secrets::Memory(Default::default()), true;

    /// `hidden`: /proc shows processes alone (`subset=pid`), and to each user its own (`hidepid=invisible`). Programs
    /// that read /proc/meminfo, /proc/sys or the like do not find them: for workloads that are known not to.
    "proc" proc: Proc, Proc::Default, Proc::Default, true;

    /// No memory of a process is writable and executable at once, nor becomes executable later (prctl(2), PR_SET_MDWE;
    /// Linux 6.3): injected code does not run. Nor does a just-in-time compiler. A container on an older kernel is
    /// refused.
    "memory_deny_write_execute" memory_deny_write_execute: bool, false, false, true;

    /// Where the pod's connections may go: `"allow"`, anywhere; `"deny"`, nowhere; or a list with semicolons of
    /// networks, each with ports and a protocol where it says so, and `dns`, the name servers of the pod's resolv.conf.
    /// Loopback and answers to connections from outside always pass; what else is sent fails with an error at once.
    ///
    /// The rules (nftables, table `inet nucleus`) are in the pod's network namespace before its first container starts,
    /// and count what they let pass and refuse. CAP_NET_ADMIN and CAP_NET_RAW, which could get around them, are taken
    /// from its containers. A pod on the host's network is refused; so is one in gVisor, unless `gvisor.network` is
    /// `host` or `none`.
    "egress" egress: Egress, Egress::Open, Egress::Open, true;

    /// A small process of nucleus is the container's first, PID 1, and runs the workload as its child: it forwards
    /// signals, reaps orphans, and ends with the workload's status (128 + n for a signal). For programs that are no
    /// init: those leave zombies, and do not end at SIGTERM unless they handle it. It runs under the workload's seccomp
    /// profile, which has to allow rt_sigtimedwait, wait4, kill and exit_group. gVisor has none: it is refused there.
    "init" init: bool, false, false, true;

    /// The least lockdown of the kernel (kernel_lockdown(7)).
    "require.lockdown" require_lockdown: Lockdown, Lockdown::None, Lockdown::None, true;

    /// Security modules that have to be active: `["apparmor"]`, for one (`/sys/kernel/security/lsm`).
    "require.lsm" require_lsm: Names, Names::default(), Names::default(), true;

    /// The least ABI of Landlock that the host has to have: 2 is Linux 5.19's, 6 is 6.12's. 0 demands none.
    "require.landlock_abi" require_landlock_abi: u32, 0, 2, true;

    /// Refuses containers without a memory limit; not the pod's sandbox, which has none.
    "require.memory_limit" require_memory_limit: bool, false, true, true;
}

impl Layer {
    /// Where the audit trail goes, by this layer, the handler's, and by `node`: known also where a pod's annotations
    /// are wrong.
    pub fn audit(&self, node: &Self) -> Audit {
        self.audit.as_ref().or(node.audit.as_ref()).cloned().unwrap_or_default()
    }
}

impl Default for Policy {
    /// Of a node that says nothing.
    fn default() -> Self {
        let silent = Layer::default();
        Self::of(&silent, &silent, &silent).expect("only what a pod asks for is ever refused")
    }
}
