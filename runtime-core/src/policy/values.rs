//! The types of settings: how their values are written, and which of two is the stricter one.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::toml;
use crate::plan::CAPABILITY_NAMES;

/// A value as somebody wrote it.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// Of a configuration.
    Toml(&'a toml::Value),
    /// Of an annotation: text, whatever the setting's type; lists are separated by commas.
    Annotation(&'a str),
}

impl<'a> Given<'a> {
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(toml::Value::Text(text)) => Some(text),
            Self::Annotation(text) => Some(text),
            Self::Toml(_) => None,
        }
    }

    pub(super) fn list(self) -> Option<Vec<&'a str>> {
        match self {
            Self::Toml(toml::Value::List(list)) => Some(list.iter().map(String::as_str).collect()),
            Self::Annotation(text) => Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
            Self::Toml(_) => None,
        }
    }
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation(text) => write!(f, "{:?}", super::shortened(text)),
            Self::Toml(toml::Value::Text(text)) => write!(f, "{:?}", super::shortened(text)),
            Self::Toml(toml::Value::Flag(flag)) => write!(f, "{flag}"),
            Self::Toml(toml::Value::Number(number)) => write!(f, "{number}"),
            Self::Toml(toml::Value::List(list)) => write!(f, "{:?}", super::shortened(&list.join(", "))),
        }
    }
}

/// A type of settings.
pub trait Value: Clone + PartialEq + fmt::Display {
    /// What its values are, after "is".
    const EXPECTED: &'static str;

    /// The value that was written, None where it is none.
    fn parse(given: Given<'_>) -> Option<Self>;

    /// What is as strict as both.
    fn stricter(&self, other: &Self) -> Self;

    /// Whether nothing is allowed that `other` forbids.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        self.stricter(other) == *self
    }
}

/// `true` is the stricter one, in every setting.
impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(given: Given<'_>) -> Option<Self> {
        match given {
            Given::Toml(toml::Value::Flag(flag)) => Some(*flag),
            Given::Annotation("true") => Some(true),
            Given::Annotation("false") => Some(false),
            _ => None,
        }
    }

    fn stricter(&self, other: &Self) -> Self {
        *self || *other
    }
}

/// A setting with a name for each of its values, from the loosest to the strictest.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])* $name:ident: $expected:literal,
        $($(#[doc = $about:literal])* $variant:ident = $text:literal),+
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[doc = $about])* #[serde(rename = $text)] $variant),+
        }

        impl Value for $name {
            const EXPECTED: &'static str = $expected;

            fn parse(given: Given<'_>) -> Option<Self> {
                match given.text()? {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn stricter(&self, other: &Self) -> Self {
                *self.max(other)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => concat!("\"", $text, "\""),)+
                })
            }
        }
    };
}

choice! {
    /// Which defaults there are.
    Mode: "\"agent\" or \"production\"",
    /// What kubelet asked for, plus what no ordinary image notices.
    Agent = "agent",
    /// Everything that can be taken away; what cannot be enforced stops the container.
    Production = "production"
}

choice! {
    /// What carries containers out.
    Runtime: "\"native\" or \"gvisor\"",
    /// The kernel's own means.
    Native = "native",
    /// gVisor's `runsc`.
    Gvisor = "gvisor"
}

choice! {
    /// What of Landlock a container gets.
    Tier: "\"none\", \"baseline\", \"hardened\" or \"strict\"",
    /// No domain.
    None = "none",
    /// No change of the mount table, where the host has it and the container's spec does not ask for what it denies.
    Baseline = "baseline",
    /// A domain in any case, and nothing to execute in what the workload can write to but its image.
    Hardened = "hardened",
    /// Nor TCP connections, ioctls, writing or signals beyond what the container was given for them.
    Strict = "strict"
}

choice! {
    /// What becomes of a container's system calls.
    SeccompMode: "\"enforce\" or \"record\"",
    /// Its filters hold.
    Enforce = "enforce",
    /// They hold, and what passes them is written down as a profile.
    Record = "record"
}

choice! {
    /// Whether a container may have directories that give the host away.
    HostPaths: "\"allow\" or \"refuse\"",
    /// As the spec says.
    Allow = "allow",
    /// Not.
    Refuse = "refuse"
}

choice! {
    /// What a mount table that is not as it was meant comes to.
    MountAudit: "\"report\" or \"refuse\"",
    /// A line in the log, and an event of the audit trail.
    Report = "report",
    /// An error: the container does not start.
    Refuse = "refuse"
}

choice! {
    /// What of /proc a container sees.
    Proc: "\"default\" or \"hidden\"",
    /// What its spec says.
    Default = "default",
    /// Processes alone, and of those its user's own.
    Hidden = "hidden"
}

choice! {
    /// The kernel's lockdown (kernel_lockdown(7)), as securityfs names it.
    Lockdown: "\"none\", \"integrity\" or \"confidentiality\"",
    /// Off, or not there.
    None = "none",
    /// Root cannot change the running kernel.
    Integrity = "integrity",
    /// Nor read its memory.
    Confidentiality = "confidentiality"
}

/// Names that all have to be there: more of them are stricter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names(pub BTreeSet<String>);

impl Value for Names {
    const EXPECTED: &'static str = "a list of names";

    fn parse(given: Given<'_>) -> Option<Self> {
        let names = given.list()?.into_iter();
        Some(Self(names.map(str::to_owned).collect()))
    }

    fn stricter(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|name| super::shortened(name)).collect();
        write!(f, "{names:?}")
    }
}

/// A demanded minimum: the greater one is the stricter one.
impl Value for u32 {
    const EXPECTED: &'static str = "a whole number, 0 or more";

    fn parse(given: Given<'_>) -> Option<Self> {
        match given {
            Given::Toml(toml::Value::Number(number)) => (*number).try_into().ok(),
            Given::Toml(_) => None,
            Given::Annotation(text) => text.parse().ok(),
        }
    }

    fn stricter(&self, other: &Self) -> Self {
        *self.max(other)
    }
}

choice! {
    /// What a sentry intercepts system calls with.
    Platform: "\"systrap\", \"kvm\" or \"ptrace\"",
    /// Signals and shared memory: everywhere, and fast.
    Systrap = "systrap",
    /// Hardware virtualisation: needs /dev/kvm.
    Kvm = "kvm",
    /// ptrace(2): everywhere, and slow.
    Ptrace = "ptrace"
}

choice! {
    /// Whose network stack the containers of a sandbox use.
    Network: "\"host\", \"sandbox\" or \"none\"",
    /// The host kernel's.
    Host = "host",
    /// The sentry's own, on the interfaces of the pod's network namespace.
    Sandbox = "sandbox",
    /// Only a loopback interface.
    None = "none"
}

choice! {
    /// Whether anybody but its sentry changes a container's root file system.
    FileAccess: "\"shared\" or \"exclusive\"",
    /// Somebody may: the sentry asks the host each time.
    Shared = "shared",
    /// Nobody does: the sentry remembers what it was told.
    Exclusive = "exclusive"
}

choice! {
    /// Who keeps what is in a pod's emptyDir volumes.
    EmptyDir: "\"host\" or \"sentry\"",
    /// The host, file by file.
    Host = "host",
    /// The pod's sentry.
    Sentry = "sentry"
}

choice! {
    /// Where a sentry keeps what is written to a container's root file system.
    Overlay: "\"none\", \"root:self\" or \"root:memory\"",
    /// In the root file system itself, file by file.
    None = "none",
    /// In one file at the top of the root file system.
    RootSelf = "root:self",
    /// In its memory.
    RootMemory = "root:memory"
}

/// Capabilities that a container can have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapabilityLimit {
    /// Those of the spec.
    Unlimited,
    /// These at most, one bit each.
    Only(u64),
}

impl CapabilityLimit {
    /// One bit for each capability that is allowed.
    pub fn bits(self) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Only(bits) => bits,
        }
    }
}

impl Value for CapabilityLimit {
    const EXPECTED: &'static str = "\"all\", or a list of capabilities such as \"CAP_CHOWN\"";

    fn parse(given: Given<'_>) -> Option<Self> {
        if given.text() == Some("all") {
            return Some(Self::Unlimited);
        }
        let bit = |name: &str| {
            let name = name.to_ascii_uppercase();
            let number = CAPABILITY_NAMES
                .iter()
                .position(|known| *known == name || known.strip_prefix("CAP_") == Some(&name))?;
            Some(1 << number)
        };
        given
            .list()?
            .into_iter()
            .try_fold(0, |bits, name| Some(bits | bit(name)?))
            .map(Self::Only)
    }

    fn stricter(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Unlimited, other) => *other,
            (own, Self::Unlimited) => *own,
            (Self::Only(own), Self::Only(other)) => Self::Only(own & other),
        }
    }
}

impl fmt::Display for CapabilityLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Only(bits) = self else {
            return f.write_str("\"all\"");
        };
        let names = CAPABILITY_NAMES.iter().enumerate();
        f.debug_list()
            .entries(
                names
                    .filter(|(number, _)| bits >> number & 1 == 1)
                    .map(|(_, name)| name),
            )
            .finish()
    }
}
