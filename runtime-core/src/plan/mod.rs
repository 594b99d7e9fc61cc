//! What a container is to be: one value, made by a pure function, that a backend only carries out.
//!
//! Nothing is silently ignored: a field of the OCI spec is honoured, or refused by name. Unknown properties are
//! ignored, as the OCI spec demands.

mod capability;
mod device;
mod egress;
mod error;
mod harden;
mod hook;
mod identity;
mod landlock;
mod mount;
mod mount_label;
mod namespace;
mod options;
mod path;
mod pod;
mod process;
#[cfg(test)]
mod properties;
mod sandbox;
mod schedule;
mod seccomp;
mod secrets;
mod sysctl;
#[cfg(test)]
mod tests;
mod types;
mod volumes;

pub use capability::NAMES as CAPABILITY_NAMES;
pub use error::Error;
pub use hook::translate as translate_hook;
pub use landlock::Domain;
pub use options::known as known_mount_options;
pub use options::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};
pub use pod::{FILES as POD_FILES, Pod};
pub use sandbox::{Mode, Sandbox, SandboxConfig, translate as translate_sandbox};
pub use types::*;
pub use volumes::pod_volumes;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime as oci;

use crate::bundle::Bundle;
use crate::host::Kernel;
use crate::policy::{HostPaths, MountAudit, Policy};
use crate::security::seccomp::named::Named;
use error::Entry;

/// What containerd says beside the bundle, and what of the host the translation depends on.
#[derive(Debug, Clone)]
pub struct Request {
    /// The container's id.
    pub id: String,
    /// The rootfs as containerd's snapshotter gives it; empty: the bundle's rootfs directory is ready.
    pub rootfs: Vec<RootfsMount>,
    /// The shim's `no_new_keyring` option: keep the session keyring.
    pub no_new_keyring: bool,
    /// uid and gid that own the stdio pipes (`runc.v1.Options.io_uid`, `io_gid`) are the shim's own affair.
    pub systemd_cgroup: bool,
    /// Whether systemd manages this host ([`crate::host::systemd_runs`]).
    pub systemd: bool,
    /// Capabilities that the host can give, one bit each ([`crate::host::capabilities`]); `u64::MAX`: not known, all.
    pub host_capabilities: u64,
    /// What the host can label processes with ([`crate::host::lsms`]).
    pub lsms: Lsms,
    /// Whether the host's cgroups are v2 alone: `resources.unified` means something only there.
    pub cgroup_v2: bool,
    /// The host's Landlock, 0 without ([`crate::host::landlock_abi`]).
    pub landlock_abi: u32,
    /// The kernel's lockdown and active security modules; read where the policy asks for them
    /// ([`crate::host::Kernel`]).
    pub kernel: Kernel,
    /// The profiles that the policy names ([`crate::security::seccomp::named::read`]).
    pub seccomp_profiles: Vec<Named>,
    /// The name servers of the container's resolv.conf, where the policy asks for them
    /// ([`crate::egress::name_servers`]).
    pub name_servers: Vec<IpAddr>,
    /// The pod, where containerd leaves its files and its shared memory to the shim.
    pub pod: Option<Pod>,
    /// The names of the pod's volumes, where they are known and the policy names some ([`pod_volumes`]).
    pub pod_volumes: BTreeSet<String>,
    /// What the node demands.
    pub policy: Policy,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            id: String::new(),
            rootfs: Vec::new(),
            no_new_keyring: false,
            systemd_cgroup: false,
            systemd: true,
            host_capabilities: u64::MAX,
            lsms: Lsms::default(),
            cgroup_v2: false,
            landlock_abi: 0,
            kernel: Kernel::default(),
            seccomp_profiles: Vec::new(),
            name_servers: Vec::new(),
            pod: None,
            pod_volumes: BTreeSet::new(),
            policy: Policy::default(),
        }
    }
}

/// Translates a bundle and what containerd asked for into a [`Plan`]. Pure: the same input gives the same Plan or
/// error.
pub fn translate(bundle: &Bundle, request: &Request) -> Result<Plan, Error> {
    translate_owned(bundle.clone(), request)
}

/// [`translate`], for who needs the bundle no longer: its spec goes into the Plan as it is, without a copy.
pub fn translate_owned(mut bundle: Bundle, request: &Request) -> Result<Plan, Error> {
    harden::require_kernel(&request.kernel, &request.policy)?;
    let mut named = request.seccomp_profiles.clone();
    if let Some(pod) = &request.pod {
        pod::give_files(&mut bundle.spec, pod);
    }
    harden::spec(&mut bundle.spec, &request.policy, &mut named)?;
    let spec = &bundle.spec;
    let missing = |field: &str| Error::Missing { field: field.into() };
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let given = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    identity::check_id(&request.id)?;
    refuse(spec, linux, request)?;

    let namespaces = namespace::namespaces(linux)?;
    let capability_limit = match namespaces.user {
        Namespace::Host => request.host_capabilities,
        // Whoever enters a user namespace has every capability there: user_namespaces(7).
        Namespace::New | Namespace::Path(_) => u64::MAX,
    };
    let mut process = process::process(given, capability_limit, request.lsms, &namespaces)?;
    process.personality = schedule::personality(linux.personality())?;
    process.deny_write_execute = request.policy.memory_deny_write_execute.value;
    (process.seccomp, process.listener) = seccomp::filters(linux.seccomp().as_ref(), &named, &request.policy)?;
    // Applies to execs only, but a wrong one is better told now than at the first probe.
    schedule::cpu_affinity(given.exec_cpu_affinity())?;

    let mut mounts = mount::mounts(spec.mounts(), &bundle.dir, &namespaces)?;
    if let Some(pod) = &request.pod {
        pod::share_memory(&mut mounts, pod);
    }
    volumes::verify(&mut mounts, spec, request)?;
    secrets::keep_in_memory(&mut mounts, &process, &namespaces, &request.policy.secrets.value);
    let mount_label = mount_label::apply(linux.mount_label().as_deref(), request.lsms.selinux, &mut mounts)?;
    let binds_dev = |mount: &Mount| mount.destination == "/dev" && matches!(mount.source, MountSource::Bind { .. });
    let default_dev = !mounts.iter().any(binds_dev);
    let devices = device::devices(linux)?;
    let mut annotations: Vec<_> = spec
        .annotations()
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    annotations.sort_unstable();

    let container = Container {
        id: request.id.clone(),
        bundle: bundle.dir.clone(),
        annotations,
        rootfs: rootfs(root, linux, &bundle.dir, request)?,
        mounts,
        mount_label,
        devices: if default_dev { devices } else { Vec::new() },
        default_dev,
        masked_paths: paths("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths())?,
        hostname: own_uts("hostname", spec.hostname(), &namespaces)?,
        domainname: own_uts("domainname", spec.domainname(), &namespaces)?,
        sysctls: sysctl::sysctls(linux.sysctl(), &namespaces)?,
        hooks: hook::hooks(spec.hooks())?,
        no_new_keyring: request.no_new_keyring,
        init: request.policy.init.value,
        refuse_differences: request.policy.mount_audit.value == MountAudit::Refuse,
        refuse_host_paths: request.policy.host_paths.value == HostPaths::Refuse,
        egress: egress::allowed(&namespaces, request)?,
        domain: None,
        namespaces,
    };
    let mut plan = Plan {
        id: request.id.clone(),
        bundle: bundle.dir,
        cgroup: identity::cgroup(linux, request)?,
        capability_limit,
        policy: request.policy.clone(),
        lsms: request.lsms,
        spec: bundle.spec,
        container,
        process,
    };
    plan.container.domain = landlock::domain(&plan, request.landlock_abi)?;
    Ok(plan)
}

/// Translates an exec's OCI process, for a container of `plan`. What the process does not say about capabilities,
/// labels, umask, OOM score, scheduling and affinity is as for the container's init, which is what runc does.
pub fn translate_exec(plan: &Plan, given: &oci::Process) -> Result<Process, Error> {
    let mut hardened = given.clone();
    harden::process(&mut hardened, &plan.policy);
    let mut process = process::process(&hardened, plan.capability_limit, plan.lsms, &plan.container.namespaces)?;
    let init = &plan.process;
    if given.capabilities().is_none() {
        process.capabilities = init.capabilities;
    }
    process.apparmor_profile = process.apparmor_profile.or_else(|| init.apparmor_profile.clone());
    process.selinux_label = process.selinux_label.or_else(|| init.selinux_label.clone());
    process.umask = process.umask.or(init.umask);
    process.oom_score_adj = process.oom_score_adj.or(init.oom_score_adj);
    process.scheduler = process.scheduler.or(init.scheduler);
    process.io_priority = process.io_priority.or(init.io_priority);
    process.personality = init.personality;
    process.deny_write_execute = init.deny_write_execute;
    process.seccomp = init.seccomp.clone();
    process.listener = init.listener.clone();
    let from_init = plan
        .spec
        .process()
        .as_ref()
        .and_then(|process| process.exec_cpu_affinity().as_ref());
    process.cpu_affinity = match (given.exec_cpu_affinity(), from_init) {
        (None, Some(_)) => schedule::cpu_affinity(&from_init.cloned())?,
        (own, _) => schedule::cpu_affinity(own)?,
    };
    Ok(process)
}

/// Fields that are known and cannot be honoured.
fn refuse(spec: &oci::Spec, linux: &oci::Linux, request: &Request) -> Result<(), Error> {
    const FOREIGN: &str = "this is a runtime for Linux; remove the field";
    const NOT_YET: &str = "remove the field, or use a runtime that has it";
    let unified = |resources: &oci::LinuxResources| resources.unified().as_ref().is_some_and(|keys| !keys.is_empty());
    let refused = [
        ("windows", spec.windows().is_some(), FOREIGN),
        ("solaris", spec.solaris().is_some(), FOREIGN),
        ("zos", spec.zos().is_some(), FOREIGN),
        (
            "vm",
            spec.vm().is_some(),
            "containers are not run in virtual machines here; remove the field",
        ),
        ("linux.intelRdt", linux.intel_rdt().is_some(), NOT_YET),
        ("linux.memoryPolicy", linux.memory_policy().is_some(), NOT_YET),
        (
            "linux.netDevices",
            linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
            NOT_YET,
        ),
        (
            "linux.resources.unified",
            !request.cgroup_v2 && linux.resources().as_ref().is_some_and(unified),
            "this host has cgroup v1; use the fields that are named after what they limit",
        ),
    ];
    if let Some((field, _, advice)) = refused.into_iter().find(|(_, present, _)| *present) {
        return Err(Error::unsupported(field, advice));
    }
    linux.resources().as_ref().map_or(Ok(()), device::check_rules)
}

fn rootfs(root: &oci::Root, linux: &oci::Linux, bundle: &Path, request: &Request) -> Result<Rootfs, Error> {
    let given = path::text(&"root.path", root.path())?;
    path::check(&"root.path", given)?;
    if root.path().components().any(|part| part == Component::ParentDir) {
        return Err(Error::invalid("root.path", given, "has a `..` in it"));
    }
    let path: PathBuf = bundle.join(root.path()).components().collect();
    let propagation = match linux.rootfs_propagation().as_deref().unwrap_or_default() {
        "" => None,
        name => Some(propagation(name).ok_or_else(|| {
            Error::invalid(
                "linux.rootfsPropagation",
                name,
                "is not one of (r)private, (r)slave, (r)shared, (r)unbindable",
            )
        })?),
    };
    let mounts = mount::rootfs(&request.rootfs, bundle)?;
    Ok(Rootfs {
        path,
        mounts,
        readonly: root.readonly().unwrap_or(false),
        propagation,
    })
}

fn propagation(name: &str) -> Option<u64> {
    let (name, recursive) = match name.strip_prefix('r') {
        Some(name) => (name, libc::MS_REC),
        None => (name, 0),
    };
    let kind = match name {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

fn paths(field: &str, given: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let clean = |(index, given): (usize, &String)| {
        path::check_absolute(&Entry { list: field, index }, given)?;
        match path::clean(given) {
            root if root == "/" => Err(Error::invalid(
                Entry { list: field, index },
                given,
                "is the rootfs itself",
            )),
            path => Ok(path),
        }
    };
    given.iter().flatten().enumerate().map(clean).collect()
}

fn own_uts(field: &'static str, name: &Option<String>, namespaces: &Namespaces) -> Result<Option<String>, Error> {
    let name = identity::uts_name(field, name.as_ref())?;
    if name.is_some() && namespaces.uts == Namespace::Host {
        return Err(Error::NeedsNamespace {
            field: field.into(),
            namespace: "uts",
        });
    }
    Ok(name)
}
