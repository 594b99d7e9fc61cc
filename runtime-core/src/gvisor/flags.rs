//! Which more of runsc's flags a node may set (`gvisor.flags`), and with which values. Pure.
//!
//! A list of what is allowed: a flag that is not in it may be one that opens the sandbox, of this release or of a later
//! one.

use super::Error;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    /// A whole number; below zero is runsc's own choice.
    Number,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Names of system calls or of runsc's commands, with commas between them.
    Names,
}

impl Kind {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Flag => matches!(value, "true" | "false"),
            Self::Number => value.parse::<i32>().is_ok(),
            Self::Choice(values) => values.contains(&value),
            Self::Names => value
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b',' | b'!')),
        }
    }

    fn expected(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Number => "a whole number".to_owned(),
            Self::Choice(values) => values.join(" or "),
            Self::Names => "names with commas between them".to_owned(),
        }
    }
}

/// Flags of how fast, how large and how talkative a sentry is (`runsc/config/flags.go`, at [`super::MINIMUM`]).
const ALLOWED: [(&str, Kind); 22] = [
    ("app-huge-pages", Kind::Flag),
    ("cpu-num-from-quota", Kind::Flag),
    ("dcache", Kind::Number),
    ("debug-command", Kind::Names),
    ("debug-log-format", Kind::Choice(&["text", "json", "json-k8s"])),
    ("directfs", Kind::Flag),
    ("enable-core-tags", Kind::Flag),
    ("fdlimit", Kind::Number),
    ("gso", Kind::Flag),
    ("gvisor-gro", Kind::Flag),
    ("gvisor-marker-file", Kind::Flag),
    ("network-processors-per-channel", Kind::Number),
    ("num-network-channels", Kind::Number),
    ("qdisc", Kind::Choice(&["none", "fifo"])),
    ("rx-checksum-offload", Kind::Flag),
    ("software-gso", Kind::Flag),
    ("strace", Kind::Flag),
    ("strace-log-size", Kind::Number),
    ("strace-syscalls", Kind::Names),
    ("systrap-disable-syscall-patching", Kind::Flag),
    ("tx-checksum-offload", Kind::Flag),
    ("watchdog-action", Kind::Choice(&["log", "panic"])),
];

/// Flags that are ours: set for every sandbox, or by a setting of their own.
const OURS: [(&str, &str); 18] = [
    ("allow-suid", "a container's spec says it (no_new_privs)"),
    ("debug", "set gvisor.debug_log"),
    ("debug-log", "set gvisor.debug_log"),
    ("file-access", "set gvisor.file_access"),
    ("file-access-mounts", "volumes are shared with others"),
    ("host-settings", "the host is nobody's to adjust but the node's"),
    ("ignore-cgroups", "cgroups are made by nucleus"),
    ("log", "runsc's words are read by nucleus"),
    ("log-format", "runsc's words are read by nucleus"),
    ("net-raw", "a container's spec says it (CAP_NET_RAW)"),
    ("network", "set gvisor.network"),
    ("oci-seccomp", "a container's spec says it (linux.seccomp)"),
    ("overlay", "set gvisor.overlay2"),
    ("overlay2", "set gvisor.overlay2"),
    ("platform", "set gvisor.platform"),
    ("root", "each sandbox has a directory of its own"),
    ("rootless", "nucleus runs as root"),
    ("systemd-cgroup", "cgroups are made by nucleus"),
];

/// Flags that take from what a sentry keeps apart.
const WEAKENING: [(&str, &str); 17] = [
    ("EXPERIMENTAL-xdp", "it takes over the host's network devices"),
    ("allow-flag-override", "pods would choose how their sentry runs"),
    ("allow-packet-socket-write", "workloads could forge packets"),
    ("allow-rootfs-tar-annotation", "pods would choose how their sentry runs"),
    (
        "alsologtostderr",
        "a sentry's log would be among the container's output",
    ),
    (
        "debug-to-user-log",
        "a sentry's log would be among the container's output",
    ),
    ("host-fifo", "workloads would reach processes of the host"),
    ("host-uds", "workloads would reach processes of the host"),
    ("iouring", "it is for gVisor's own tests"),
    ("nvproxy", "workloads would reach the host's drivers"),
    ("nvproxy-docker", "workloads would reach the host's drivers"),
    ("pod-init-config", "it has the sentry do what nobody here checked"),
    ("profile", "it loosens the sentry's own seccomp filters"),
    ("ref-leak-mode", "it is for gVisor's own tests"),
    ("reproduce-nat", "rules of the host would be run in the sentry"),
    ("reproduce-nftables", "rules of the host would be run in the sentry"),
    ("tpuproxy", "workloads would reach the host's drivers"),
];

/// Whether runsc may be given these.
///
/// # Errors
/// [`Error::Flag`] names the first that it may not, and says why.
pub fn check(flags: &[(String, String)]) -> Result<(), Error> {
    flags.iter().try_for_each(|(name, value)| check_one(name, value))
}

fn check_one(name: &str, value: &str) -> Result<(), Error> {
    let refused = |reason: String| Error::Flag {
        name: name.to_owned(),
        reason,
    };
    let named = |list: &[(&str, &'static str)]| list.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
    if let Some(why) = named(&OURS) {
        return Err(refused(format!("nucleus sets it itself: {why}")));
    }
    if let Some(why) = named(&WEAKENING) {
        return Err(refused(format!("it weakens the sandbox: {why}")));
    }
    let Some((_, kind)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ALLOWED.iter().map(|(known, _)| *known).collect();
        return Err(refused(format!("it is not one of {}", known.join(", "))));
    };
    if kind.fits(value) {
        return Ok(());
    }
    Err(refused(format!("it is {}, not {value:?}", kind.expected())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<(), String> {
        check(&[(name.into(), value.into())]).map_err(|error| error.to_string())
    }

    #[test]
    fn what_makes_a_sentry_faster_or_more_talkative_is_allowed() {
        for (name, value) in [
            ("directfs", "false"),
            ("dcache", "-1"),
            ("qdisc", "none"),
            ("strace-syscalls", "open,openat2"),
            ("debug-command", "!boot"),
        ] {
            assert_eq!(checked(name, value), Ok(()), "{name}");
        }
        for (name, value) in [
            ("directfs", "yes"),
            ("dcache", "many"),
            ("qdisc", "tbf"),
            ("strace-syscalls", "a b"),
        ] {
            let error = checked(name, value).unwrap_err();
            assert!(
                error.starts_with(&format!("gvisor.flags: {name} is refused: it is ")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_weakens_is_ours_or_is_not_known_is_refused_by_its_name() {
        assert_eq!(
            checked("host-uds", "all").unwrap_err(),
            "gvisor.flags: host-uds is refused: it weakens the sandbox: workloads would reach processes of the host"
        );
        assert_eq!(
            checked("platform", "kvm").unwrap_err(),
            "gvisor.flags: platform is refused: nucleus sets it itself: set gvisor.platform"
        );
        assert!(
            checked("TESTONLY-unsafe-nonroot", "true")
                .unwrap_err()
                .contains("it is not one of app-huge-pages, ")
        );
    }

    #[test]
    fn no_flag_is_in_two_lists_and_gvisor_md_names_all_that_are_allowed() {
        let others = || OURS.iter().chain(&WEAKENING).map(|(name, _)| *name);
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gvisor.md");
        let page = std::fs::read_to_string(page).unwrap();
        for (name, _) in ALLOWED {
            assert!(!others().any(|other| other == name), "{name}");
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/gvisor.md does not name {name}"
            );
        }
    }
}
