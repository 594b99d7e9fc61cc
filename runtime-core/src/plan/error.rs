//! Why a spec is refused, and where.

use std::fmt::{self, Display};

/// Why a spec is refused. Each variant names the field, and the value where there is one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// An id that containerd itself would not make: it becomes part of paths.
    #[error(
        "container id {id:?} is not one: letters and digits, single `.`, `_` or `-` between them, at most 76 bytes"
    )]
    Id { id: String },
    /// A field without which there is no container.
    #[error("{field} is missing")]
    Missing { field: String },
    /// A value that the OCI spec or the kernel does not allow.
    #[error("{field}: {value} {wrong}")]
    Invalid {
        field: String,
        value: String,
        wrong: &'static str,
    },
    /// A field that cannot be honoured, and what to do about it.
    #[error("{field} is not supported: {advice}")]
    Unsupported { field: String, advice: &'static str },
    /// The same thing asked for twice.
    #[error("{field}: {value} is there twice")]
    Duplicate { field: String, value: String },
    /// A setting that would change the host, or the pod's other containers.
    #[error("{field}: the container needs its own {namespace} namespace for this")]
    NeedsNamespace { field: String, namespace: &'static str },
    /// A requested capability that the host cannot give.
    #[error("process.capabilities.{set}: this host does not have {name}; remove it, or give it to containerd")]
    HostLacksCapability { set: &'static str, name: String },
    /// The kernel's rules between the five sets: capabilities(7).
    #[error("process.capabilities.{set}: {name} has to be in {within} too")]
    CapabilitySets {
        set: &'static str,
        name: String,
        within: &'static str,
    },
    /// What the node's policy forbids.
    #[error("{field}: refused by the policy, {setting} = {value} ({by}): {advice}")]
    Policy {
        setting: &'static str,
        value: String,
        by: crate::policy::Origin,
        field: String,
        advice: &'static str,
    },
    /// A system call filter that cannot be made.
    #[error(transparent)]
    Seccomp(#[from] crate::security::seccomp::Error),
    /// A filter of the policy's that cannot be made.
    #[error("seccomp.profile: profile {name:?}")]
    NamedProfile {
        name: String,
        source: crate::security::seccomp::Error,
    },
    /// A user or group that the container's user namespace does not know.
    #[error("{field}: {id} is not mapped in the container's user namespace")]
    Unmapped { field: String, id: u32 },
}

/// An entry of a list in the spec: `mounts[3]`. Text is made of it only where there is an error to tell.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub list: &'a str,
    pub index: usize,
}

/// A field of an entry: `mounts[3].source`.
#[derive(Clone, Copy)]
pub(super) struct Field<'a>(Entry<'a>, &'static str);

impl<'a> Entry<'a> {
    pub(super) fn field(self, name: &'static str) -> Field<'a> {
        Field(self, name)
    }
}

impl Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}

impl Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Error {
    pub(super) fn missing(field: impl Display) -> Self {
        Self::Missing {
            field: field.to_string(),
        }
    }

    pub(super) fn invalid(field: impl Display, value: impl AsRef<str>, wrong: &'static str) -> Self {
        Self::Invalid {
            field: field.to_string(),
            value: quoted(value.as_ref()),
            wrong,
        }
    }

    pub(super) fn number(field: impl Display, value: impl ToString, wrong: &'static str) -> Self {
        Self::Invalid {
            field: field.to_string(),
            value: value.to_string(),
            wrong,
        }
    }

    pub(super) fn unsupported(field: impl Display, advice: &'static str) -> Self {
        Self::Unsupported {
            field: field.to_string(),
            advice,
        }
    }

    pub(super) fn duplicate(field: impl Display, value: impl AsRef<str>) -> Self {
        Self::Duplicate {
            field: field.to_string(),
            value: quoted(value.as_ref()),
        }
    }
}

/// A value as it is shown: quoted and escaped, and never a megabyte of it in somebody's log.
fn quoted(value: &str) -> String {
    const SHOWN: usize = 128;
    match value.char_indices().nth(SHOWN) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &value[..end], value.len()),
    }
}
