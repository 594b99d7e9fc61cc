//! What this host and this runtime can do.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::plan::{self, Lsms};
use crate::policy::{Lockdown, Policy};
use crate::sys::{landlock, process};

/// Oldest version of the OCI runtime spec whose config.json is understood.
pub const OCI_VERSION_MIN: &str = "1.0.0";
/// Newest version of which every field is honoured or refused by name.
pub const OCI_VERSION_MAX: &str = "1.3.0";

/// The OCI features document (runtime-spec, features.md): what a caller may put into config.json. It says nothing of
/// the host: `cgroup.v1` is true on a host that has v2 alone, just as runc has it.
///
/// containerd reads it when its CRI plugin starts: recursive read-only mounts are for runtimes whose `mountOptions`
/// hold `rro`, pods with user namespaces for those with the namespace `user` and `mountExtensions.idmap`.
pub fn features() -> Value {
    let mut mount_options: Vec<String> = plan::known_mount_options().collect();
    mount_options.sort_unstable();
    json!({
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION_MAX,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": plan::CAPABILITY_NAMES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
                "supportedFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false, "schemata": false, "monitoring": false},
            "memoryPolicy": {"modes": [], "flags": []},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false},
        },
        "annotations": {"org.nucleus.version": env!("CARGO_PKG_VERSION")},
    })
}

/// Whether systemd is this host's service manager (sd_booted(3)).
pub fn systemd_runs() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// Security modules that label processes and are enabled in the running kernel. Read once: that takes a boot to change.
pub fn lsms() -> Lsms {
    static LSMS: OnceLock<Lsms> = OnceLock::new();
    *LSMS.get_or_init(|| {
        let says = |file: &str, word: &str| std::fs::read_to_string(file).is_ok_and(|text| text.trim_end() == word);
        Lsms {
            apparmor: says("/sys/module/apparmor/parameters/enabled", "Y"),
            // The file system is there where a policy can be loaded, and the attribute is a label where one is.
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists()
                && !says("/proc/self/attr/current", "kernel"),
        }
    })
}

/// Capabilities that this process can hand on, one bit each: what it has, within its bounding set (capabilities(7)).
/// Read once: a shim does not gain any later.
pub fn capabilities() -> u64 {
    static CAPABILITIES: OnceLock<u64> = OnceLock::new();
    *CAPABILITIES.get_or_init(|| {
        // capget(2) of oneself does not fail. If it did, the kernel would still refuse what cannot be had, less
        // clearly.
        let permitted = process::capabilities().map_or(u64::MAX, |sets| sets.permitted);
        let known = 0..plan::CAPABILITY_NAMES.len() as u32;
        let bounding = known
            .filter(|&number| process::in_bounding(number))
            .fold(0, |set, number| set | 1 << number);
        permitted & bounding
    })
}

/// The ABI of the kernel's Landlock, 0 where it has none. Asked once: it does not change while the kernel runs.
pub fn landlock_abi() -> u32 {
    static ABI: OnceLock<u32> = OnceLock::new();
    *ABI.get_or_init(landlock::abi)
}

/// What securityfs tells of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// kernel_lockdown(7).
    pub lockdown: Lockdown,
    /// The active security modules.
    pub security_modules: BTreeSet<String>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            lockdown: Lockdown::None,
            security_modules: BTreeSet::new(),
        }
    }
}

impl Kernel {
    /// Reads what `policy` demands something of, and no more. Where it cannot be read it is not there.
    pub fn read(policy: &Policy) -> Self {
        const SECURITYFS: &str = "/sys/kernel/security";
        let read = |file| std::fs::read_to_string(format!("{SECURITYFS}/{file}")).unwrap_or_default();
        let mut kernel = Self::default();
        if policy.require_lockdown.value > Lockdown::None {
            kernel.lockdown = lockdown(&read("lockdown"));
        }
        if !policy.require_lsm.value.0.is_empty() {
            kernel.security_modules = read("lsm").trim().split(',').map(str::to_owned).collect();
        }
        kernel
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Lockdown {
    let is_set = |mode: &str| text.contains(&format!("[{mode}]"));
    match (is_set("confidentiality"), is_set("integrity")) {
        (true, _) => Lockdown::Confidentiality,
        (_, true) => Lockdown::Integrity,
        _ => Lockdown::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_are_what_containerd_looks_for() {
        let features = features();
        // oci-spec's own type reads it.
        serde_json::from_value::<oci_spec::runtime::Features>(features.clone()).unwrap();
        let options: Vec<&str> = features["mountOptions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(options.contains(&"rro") && options.contains(&"ridmap"));
        assert!(options.is_sorted());
        assert!(
            features["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .contains(&"user".into())
        );
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    }

    #[test]
    fn the_lockdown_is_the_mode_in_brackets() {
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(
            lockdown("none integrity [confidentiality]\n"),
            Lockdown::Confidentiality
        );
        assert_eq!(lockdown("[none] integrity confidentiality\n"), Lockdown::None);
        assert_eq!(lockdown(""), Lockdown::None);
    }

    #[test]
    fn the_capabilities_are_those_that_proc_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(capabilities(), set("CapPrm:") & set("CapBnd:"));
    }
}
