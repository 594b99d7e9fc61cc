//! Whether a container gets a Landlock domain, and which.

use serde::{Deserialize, Serialize};

use super::{Container, Error, MOUNT_ATTR_RDONLY, Mount, MountSource, Namespace, Plan};
use crate::policy::{Decided, Origin, Policy, Ports, Scopes, Tier, Trees, Value, is_in};

const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// /dev/fuse, Documentation/admin-guide/devices.txt.
const FUSE: (u32, u32) = (10, 229);
/// The first ABI with REFER: in a domain of an older one every rename across directories fails.
const ABI_REFER: u32 = 2;
const ABI_TRUNCATE: u32 = 3;
const ABI_TCP: u32 = 4;
const ABI_IOCTL: u32 = 5;
const ABI_SCOPES: u32 = 6;
/// What a terminal is found at: the devpts, the controlling terminal, and init's own.
const TERMINALS: [&str; 3] = ["/dev/pts", "/dev/tty", "/dev/console"];

/// A Landlock domain: it denies every change of the mount table, and tracing what is outside. Paths are the
/// container's, with all its mounts; what has none is not restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Domain {
    /// Abstract sockets that were made outside cannot be connected to: the host's, in a container on its network.
    pub scope_abstract_sockets: bool,
    /// Nothing outside can be sent a signal.
    pub scope_signals: bool,
    /// Where programs can be executed.
    pub execute: Option<Vec<String>>,
    /// Where files can be read.
    pub read: Option<Vec<String>>,
    /// Where files can be written to, made and removed.
    pub write: Option<Vec<String>>,
    /// Mount points below which the same is possible: what the spec leaves writable where the root is not.
    pub writable_mounts: Option<Vec<String>>,
    /// Devices that take ioctls.
    pub ioctl: Option<Vec<String>>,
    /// Devices and terminals that can be read and written to whatever the lists say; not all are there.
    pub devices: Vec<String>,
    /// Ports that can be listened at.
    pub tcp_bind: Option<Vec<u16>>,
    /// Ports that can be connected to.
    pub tcp_connect: Option<Vec<u16>>,
}

impl Domain {
    /// Whether opening a file for reading or writing depends on where it is.
    pub fn is_about_contents(&self) -> bool {
        self.read.is_some() || self.write.is_some() || self.writable_mounts.is_some()
    }

    /// Whether it says more than the tiers `baseline` and `hardened` do.
    pub fn has_rules(&self) -> bool {
        let of_domain_alone = Self {
            scope_abstract_sockets: self.scope_abstract_sockets,
            ..Self::default()
        };
        *self != of_domain_alone
    }
}

/// The domain of a container that is otherwise translated.
///
/// # Errors
/// A tier, a rule or an ABI that is demanded and cannot be had, on this host or with what the spec asks for.
pub(super) fn domain(plan: &Plan, abi: u32) -> Result<Option<Domain>, Error> {
    let policy = &plan.policy;
    let (tier, required) = (policy.landlock_tier.value, policy.require_landlock_abi.value);
    if abi < required {
        return Err(Error::Policy {
            setting: "require.landlock_abi",
            value: required.to_string(),
            by: policy.require_landlock_abi.from,
            field: format!("this host's Landlock has ABI {abi}"),
            advice: "run the container on a node with a newer kernel that has Landlock switched on",
        });
    }
    let demands = demands(policy);
    if tier == Tier::None {
        return match demands.first() {
            Some(rule) => Err(rule.refused(
                "landlock.tier = \"none\"",
                "a rule needs a domain: take the tier \"baseline\"",
            )),
            None => Ok(None),
        };
    }
    if let Some(why) = incompatible(plan) {
        return match demands.first() {
            Some(demand) => Err(demand.refused(why, "no Landlock domain lets a container have it; take it away")),
            None => Ok(None),
        };
    }
    if let Some(demand) = demands.iter().find(|demand| abi < demand.abi) {
        return Err(demand.refused(&format!("this host's Landlock has ABI {abi}"), release(demand.abi)));
    }
    let is_demanded = !demands.is_empty();
    if abi < ABI_REFER || !is_demanded && looks_at_others(plan) {
        return Ok(None);
    }
    let scopes = policy.landlock_scope.value;
    let has_own_processes = plan.container.namespaces.pid == Namespace::New;
    if scopes.signal && !has_own_processes {
        return Err(
            Demand::of("landlock.scope", &policy.landlock_scope, ABI_SCOPES).refused(
                "the PID namespace is not the container's own",
                "processes of a pod that share one signal each other; leave \"signal\" out",
            ),
        );
    }
    let is_hardened = tier >= Tier::Hardened;
    let on_host = plan.container.namespaces.net == Namespace::Host;
    let mut domain = rules(&plan.container, policy);
    domain.scope_abstract_sockets = scopes.abstract_unix_socket || abi >= ABI_SCOPES && (is_hardened || on_host);
    domain.scope_signals = scopes.signal || tier == Tier::Strict && has_own_processes;
    Ok(Some(domain))
}

/// What of the policy needs a domain, and the ABI that it takes.
struct Demand {
    setting: &'static str,
    value: String,
    by: Origin,
    abi: u32,
}

impl Demand {
    fn of<T: Value>(setting: &'static str, decided: &Decided<T>, abi: u32) -> Self {
        Self {
            setting,
            value: decided.value.to_string(),
            by: decided.from,
            abi,
        }
    }

    fn refused(&self, field: &str, advice: &'static str) -> Error {
        Error::Policy {
            setting: self.setting,
            value: self.value.clone(),
            by: self.by,
            field: field.to_owned(),
            advice,
        }
    }
}

fn demands(policy: &Policy) -> Vec<Demand> {
    let tier = match policy.landlock_tier.value {
        Tier::None | Tier::Baseline => None,
        Tier::Hardened => Some(ABI_REFER),
        Tier::Strict => Some(ABI_SCOPES),
    };
    let mut demands: Vec<Demand> = tier
        .map(|abi| Demand::of("landlock.tier", &policy.landlock_tier, abi))
        .into_iter()
        .collect();
    for (setting, trees, abi) in [
        ("landlock.read", &policy.landlock_read, ABI_REFER),
        ("landlock.write", &policy.landlock_write, ABI_TRUNCATE),
        ("landlock.execute", &policy.landlock_execute, ABI_REFER),
        ("landlock.ioctl", &policy.landlock_ioctl, ABI_IOCTL),
    ] {
        if trees.value != Trees::Any {
            demands.push(Demand::of(setting, trees, abi));
        }
    }
    for (setting, ports) in [
        ("landlock.tcp_bind", &policy.landlock_tcp_bind),
        ("landlock.tcp_connect", &policy.landlock_tcp_connect),
    ] {
        if ports.value != Ports::Any {
            demands.push(Demand::of(setting, ports, ABI_TCP));
        }
    }
    if policy.landlock_scope.value != Scopes::default() {
        demands.push(Demand::of("landlock.scope", &policy.landlock_scope, ABI_SCOPES));
    }
    demands
}

/// The first kernel with an ABI, as advice.
fn release(abi: u32) -> &'static str {
    match abi {
        ABI_TRUNCATE => "it needs ABI 3 (Linux 6.2), switched on",
        ABI_TCP => "it needs ABI 4 (Linux 6.7), switched on",
        ABI_IOCTL => "it needs ABI 5 (Linux 6.10), switched on",
        ABI_SCOPES => "it needs ABI 6 (Linux 6.12), switched on",
        _ => "it needs ABI 2 (Linux 5.19), switched on",
    }
}

/// The lists of the policy, and what the tier `strict` makes of those that are not there.
fn rules(container: &Container, policy: &Policy) -> Domain {
    let is_sandbox = super::harden::is_sandbox(container.annotations.iter().map(|(key, value)| (key, value)));
    let listed = |trees: &Decided<Trees>| -> Option<Vec<String>> {
        // The lists are of the workload's images.
        let paths = trees.value.paths().filter(|_| !is_sandbox)?;
        Some(paths.map(str::to_owned).collect())
    };
    let ports = |ports: &Decided<Ports>| match &ports.value {
        Ports::Any => None,
        Ports::Only(ports) => Some(ports.iter().copied().collect()),
    };
    let is_strict = policy.landlock_tier.value == Tier::Strict;
    let given = || container.devices.iter().map(|device| device.path.as_str());
    let terminals = TERMINALS.into_iter();
    let mut domain = Domain {
        execute: listed(&policy.landlock_execute),
        read: listed(&policy.landlock_read),
        write: listed(&policy.landlock_write),
        tcp_bind: ports(&policy.landlock_tcp_bind),
        tcp_connect: ports(&policy.landlock_tcp_connect),
        ..Domain::default()
    };
    if is_strict && container.rootfs.readonly && domain.write.is_none() {
        domain.writable_mounts = Some(writable_mounts(container));
    }
    let ioctl = &policy.landlock_ioctl.value;
    if is_strict || *ioctl != Trees::Any {
        let chosen = given().filter(|path| ioctl.covers(path));
        domain.ioctl = Some(terminals.clone().chain(chosen).map(str::to_owned).collect());
    }
    if domain.is_about_contents() {
        domain.devices = terminals.chain(given()).map(str::to_owned).collect();
    }
    domain
}

/// Where the spec leaves something writable beside the root. What is mounted below a proc is covered by the latter.
fn writable_mounts(container: &Container) -> Vec<String> {
    let kind = |mount: &Mount, name: &str| matches!(&mount.source, MountSource::New { kind, .. } if kind == name);
    let procs: Vec<&Mount> = container.mounts.iter().filter(|mount| kind(mount, "proc")).collect();
    let is_in_proc = |mount: &Mount| {
        let is_below =
            |proc: &&Mount| proc.destination != mount.destination && is_in(&mount.destination, &proc.destination);
        procs.iter().any(is_below)
    };
    let is_read_only = |mount: &Mount| {
        (mount.set | mount.recursive_set) & MOUNT_ATTR_RDONLY != 0 || mount.superblock.iter().any(|flag| flag == "ro")
    };
    let mounts = container.mounts.iter();
    mounts
        .filter(|mount| !is_read_only(mount) && !is_in_proc(mount))
        .map(|mount| mount.destination.clone())
        .collect()
}

/// What a container may do by its spec that no domain would let it do.
fn incompatible(plan: &Plan) -> Option<&'static str> {
    let container = &plan.container;
    let is_shared = |propagation: u64| propagation & libc::MS_SHARED != 0;
    let shares = |mount: &Mount| mount.propagation.iter().any(|flags| is_shared(*flags));
    if has(plan, CAP_SYS_ADMIN) {
        Some("process.capabilities: CAP_SYS_ADMIN")
    } else if container.mounts.iter().any(shares) || container.rootfs.propagation.is_some_and(is_shared) {
        Some("shared mount propagation")
    } else if container
        .devices
        .iter()
        .any(|device| (device.major, device.minor) == FUSE)
    {
        Some("linux.devices: /dev/fuse")
    } else {
        None
    }
}

/// Whether it shares a PID namespace to look at what others run there, as `kubectl debug --target` and pods with
/// shareProcessNamespace do: from inside a domain it could trace nobody, nor follow a /proc/<pid>/root.
fn looks_at_others(plan: &Plan) -> bool {
    match plan.container.namespaces.pid {
        Namespace::New => false,
        Namespace::Path(_) => true,
        Namespace::Host => has(plan, CAP_SYS_PTRACE),
    }
}

fn has(plan: &Plan, capability: u64) -> bool {
    let sets = plan.process.capabilities.unwrap_or_default();
    (sets.bounding | sets.permitted | sets.ambient) & capability != 0
}
