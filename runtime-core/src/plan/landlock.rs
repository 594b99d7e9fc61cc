//! Whether a container gets a Landlock domain, and which.

use super::{Domain, Error, Mount, Namespace, Plan};
use crate::policy::{Policy, Tier};

const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// /dev/fuse, Documentation/admin-guide/devices.txt.
const FUSE: (u32, u32) = (10, 229);
/// The first ABI with REFER: in a domain of an older one every rename across directories fails.
const ABI_REFER: u32 = 2;
const ABI_SCOPES: u32 = 6;

/// The domain of a container that is otherwise translated.
///
/// # Errors
/// A tier or an ABI that is demanded and cannot be had, on this host or with what the spec asks for.
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
    let refused = |field: &str, advice| Err(too_little(policy, field, advice));
    let is_demanded = tier >= Tier::Hardened;
    if tier == Tier::None {
        return Ok(None);
    }
    if let Some(why) = incompatible(plan) {
        return match is_demanded {
            true => refused(why, "no Landlock domain lets a container have it; take it away"),
            false => Ok(None),
        };
    }
    if abi < ABI_REFER {
        let field = format!("this host's Landlock has ABI {abi}");
        return match is_demanded {
            true => refused(&field, "it needs ABI 2 (Linux 5.19), switched on"),
            false => Ok(None),
        };
    }
    if !is_demanded && looks_at_others(plan) {
        return Ok(None);
    }
    Ok(Some(Domain {
        scope_abstract_sockets: abi >= ABI_SCOPES && (is_demanded || plan.container.namespaces.net == Namespace::Host),
    }))
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

fn too_little(policy: &Policy, field: &str, advice: &'static str) -> Error {
    Error::Policy {
        setting: "landlock.tier",
        value: policy.landlock_tier.value.to_string(),
        by: policy.landlock_tier.from,
        field: field.to_owned(),
        advice,
    }
}
