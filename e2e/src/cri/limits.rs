//! Specs of critest that are not asked, and why: by name, all of them. What runc passes and is not named here has to
//! pass.

/// Reasons, each with the ends of specs' names.
pub type Limits = &'static [(&'static str, &'static [&'static str])];

/// What containerd lacks where the shim makes pods' sandboxes.
pub const SANDBOXED: Limits = &[];

/// What is gVisor's own.
pub const GVISOR: Limits = &[
    (
        "what is mounted in a sentry cannot appear on the host: refused by name",
        &["mount with 'rshared' should support propagation from host to container and vice versa"],
    ),
    (
        "a volume is one mount to the sentry, read-only all the way down",
        &["runtime should support readonly mounts should support non-recursive readonly mounts"],
    ),
    (
        "recursive read-only mounts are not claimed: to the sentry every read-only volume is one",
        &[
            "readonly mounts should reject a recursive readonly mount with PROPAGATION_BIDIRECTIONAL",
            "readonly mounts should reject a recursive readonly mount with PROPAGATION_HOST_TO_CONTAINER",
            "readonly mounts should reject a recursive readonly mount with ReadOnly: false",
            "readonly mounts should support recursive readonly mounts",
        ],
    ),
    (
        "the sentry has no such settings: refused by name",
        &[
            "runtime should support sysctls should support safe sysctls",
            "runtime should support sysctls should support unsafe sysctls",
        ],
    ),
    (
        "the sentry keeps System V IPC inside: refused by name",
        &["NamespaceOption runtime should support HostIpc is true"],
    ),
    (
        "it looks for the host's sockets in /proc/net, which has the sentry's own; that the host's network is reached \
         is shown by the suite gvisor",
        &["NamespaceOption runtime should support HostNetwork is true"],
    ),
    (
        "the sentry has no bridges, and no /sys/class/net: brctl and ip link have nothing to work on",
        &[
            "bucket runtime should support Privileged is true",
            "bucket runtime should support adding capability",
        ],
    ),
    (
        "the sentry gives a profile to a container's first process and its children, and none to execs",
        &[
            "runtime should support an seccomp profile that blocks setting hostname with SYS_ADMIN",
            "should support seccomp localhost profile on the container",
        ],
    ),
    (
        "the sentry's /proc does not show a process's seccomp mode",
        &["should support seccomp default on the container"],
    ),
    (
        "containerd forwards ports to the pod's namespace on the host; the sentry's network stack is its own",
        &["runtime should support streaming interfaces runtime should support portforward [Conformance]"],
    ),
];

/// Why a spec is not asked, if so.
pub fn reason(limits: Limits, name: &str) -> Option<&'static str> {
    limits
        .iter()
        .find_map(|(reason, ends)| ends.iter().any(|end| name.ends_with(end)).then_some(*reason))
}

/// The ends of all their names.
pub fn names(limits: Limits) -> impl Iterator<Item = &'static str> {
    limits.iter().flat_map(|(_, ends)| ends.iter().copied())
}
