//! Capabilities: names to bits, and the rules between the sets.

use oci_spec::runtime::{Capabilities as Names, Capability, LinuxCapabilities};

use super::{Capabilities, Error};

/// Every capability by its number in capabilities(7) and linux/capability.h.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

fn number(capability: Capability) -> u32 {
    use Capability::*;
    match capability {
        Chown => 0,
        DacOverride => 1,
        DacReadSearch => 2,
        Fowner => 3,
        Fsetid => 4,
        Kill => 5,
        Setgid => 6,
        Setuid => 7,
        Setpcap => 8,
        LinuxImmutable => 9,
        NetBindService => 10,
        NetBroadcast => 11,
        NetAdmin => 12,
        NetRaw => 13,
        IpcLock => 14,
        IpcOwner => 15,
        SysModule => 16,
        SysRawio => 17,
        SysChroot => 18,
        SysPtrace => 19,
        SysPacct => 20,
        SysAdmin => 21,
        SysBoot => 22,
        SysNice => 23,
        SysResource => 24,
        SysTime => 25,
        SysTtyConfig => 26,
        Mknod => 27,
        Lease => 28,
        AuditWrite => 29,
        AuditControl => 30,
        Setfcap => 31,
        MacOverride => 32,
        MacAdmin => 33,
        Syslog => 34,
        WakeAlarm => 35,
        BlockSuspend => 36,
        AuditRead => 37,
        Perfmon => 38,
        Bpf => 39,
        CheckpointRestore => 40,
    }
}

fn bits(names: &Option<Names>) -> u64 {
    names
        .iter()
        .flatten()
        .fold(0, |bits, &capability| bits | 1 << number(capability))
}

/// Takes what is not in `allowed` out of all five sets: so they still fit each other.
pub(super) fn cut(given: &LinuxCapabilities, allowed: u64) -> LinuxCapabilities {
    let cut = |names: &Option<Names>| {
        let keep = |capability: &&Capability| allowed >> number(**capability) & 1 == 1;
        names
            .as_ref()
            .map(|names| names.iter().filter(keep).copied().collect::<Names>())
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(cut(given.bounding()))
        .set_effective(cut(given.effective()))
        .set_permitted(cut(given.permitted()))
        .set_inheritable(cut(given.inheritable()))
        .set_ambient(cut(given.ambient()));
    sets
}

/// The name of the lowest bit that is set.
fn name(bits: u64) -> String {
    let number = bits.trailing_zeros() as usize;
    NAMES
        .get(number)
        .map_or_else(|| number.to_string(), |name| (*name).into())
}

/// The five sets. What is asked for is given in full or refused: a capability beyond `limit` (the host's) is an error,
/// as is a set that the kernel would refuse or cut: capset(2), PR_CAP_AMBIENT_RAISE.
pub(super) fn capabilities(given: &LinuxCapabilities, limit: u64) -> Result<Capabilities, Error> {
    let sets = Capabilities {
        bounding: bits(given.bounding()),
        effective: bits(given.effective()),
        permitted: bits(given.permitted()),
        inheritable: bits(given.inheritable()),
        ambient: bits(given.ambient()),
    };
    let named = [
        ("bounding", sets.bounding),
        ("effective", sets.effective),
        ("permitted", sets.permitted),
        ("inheritable", sets.inheritable),
        ("ambient", sets.ambient),
    ];
    for (set, bits) in named {
        if bits & !limit != 0 {
            return Err(Error::HostLacksCapability {
                set,
                name: name(bits & !limit),
            });
        }
    }
    let within = |set, bits: u64, within, others: u64| match bits & !others {
        0 => Ok(()),
        outside => Err(Error::CapabilitySets {
            set,
            name: name(outside),
            within,
        }),
    };
    within("effective", sets.effective, "permitted", sets.permitted)?;
    within("ambient", sets.ambient, "permitted", sets.permitted)?;
    within("ambient", sets.ambient, "inheritable", sets.inheritable)?;
    // The kernel refuses to add what is beyond the bounding set to the inheritable one.
    within("inheritable", sets.inheritable, "bounding", sets.bounding)?;
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(json: &str, limit: u64) -> Result<Capabilities, String> {
        capabilities(&serde_json::from_str(json).unwrap(), limit).map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_has_its_number() {
        for (index, name) in NAMES.iter().enumerate() {
            let capability: Capability = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!(number(capability) as usize, index, "{name}");
        }
    }

    #[test]
    fn the_five_sets_are_kept_apart() {
        let json = r#"{"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}"#;
        let sets = sets(json, u64::MAX).unwrap();
        assert_eq!((sets.bounding, sets.permitted), (0b100001, 0b100001));
        assert_eq!((sets.effective, sets.inheritable, sets.ambient), (0b100000, 1, 1));
    }

    #[test]
    fn what_the_host_lacks_is_refused_by_name_in_every_set() {
        for set in ["bounding", "permitted"] {
            let json = format!(r#"{{"{set}": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]}}"#);
            let error = sets(&json, !(1 << 24)).unwrap_err();
            let expected = format!("process.capabilities.{set}: this host does not have CAP_SYS_RESOURCE; ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn sets_that_the_kernel_would_refuse_are_told_by_capability() {
        for (json, expected) in [
            (
                r#"{"effective": ["CAP_KILL"]}"#,
                "process.capabilities.effective: CAP_KILL has to be in permitted too",
            ),
            (
                r#"{"permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]}"#,
                "process.capabilities.ambient: CAP_KILL has to be in inheritable too",
            ),
            (
                r#"{"ambient": ["CAP_KILL"]}"#,
                "process.capabilities.ambient: CAP_KILL has to be in permitted too",
            ),
            (
                r#"{"inheritable": ["CAP_BPF"]}"#,
                "process.capabilities.inheritable: CAP_BPF has to be in bounding too",
            ),
        ] {
            assert_eq!(sets(json, u64::MAX).unwrap_err(), expected);
        }
    }
}
