//! Why a profile is refused.

/// Why a profile is refused. Each variant names the field, and the value where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// A rule without a name would silently do nothing.
    #[error("linux.seccomp.syscalls[{rule}].names {wrong}")]
    Names { rule: usize, wrong: &'static str },
    /// System calls have six arguments.
    #[error("linux.seccomp.syscalls[{rule}].args[{argument}].index: {index} is not an argument (0 to 5)")]
    Index { rule: usize, argument: usize, index: usize },
    /// The kernel cuts an errno at 4095 (MAX_ERRNO), a tracer's value at 65535.
    #[error("linux.seccomp.{field}: {value} is more than the {most} that {action} can give")]
    ErrnoRet {
        field: String,
        value: u32,
        most: u32,
        action: &'static str,
    },
    /// Who carries the listener to the agent would itself wait for the agent.
    #[error("linux.seccomp.{field}: SCMP_ACT_NOTIFY {wrong}")]
    Notify { field: String, wrong: &'static str },
    /// Flags that the kernel takes only together with something else.
    #[error("linux.seccomp.flags: {flag} {wrong}")]
    Flag { flag: &'static str, wrong: &'static str },
    /// BPF_MAXINSNS of linux/bpf_common.h.
    #[error("linux.seccomp: the filter has {instructions} instructions, the kernel takes {most}")]
    TooLong { instructions: usize, most: usize },
}
