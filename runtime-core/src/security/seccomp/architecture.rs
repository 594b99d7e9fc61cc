//! Which calling conventions a machine has, and how the kernel tells them apart.

use oci_spec::runtime::Arch;

/// Bit 30 of a number: the call is x32's. The kernel reports x86_64 as its architecture.
pub(super) const X32_BIT: u32 = 1 << 30;

/// A way of making system calls, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Architecture {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Architecture {
    /// seccomp_data's `arch`: AUDIT_ARCH_* of linux/audit.h.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are compared as 64 bits. x32's are not, as in libseccomp.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }
}

/// A kind of machine, by its native architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The machine that this program is made for.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// What calls are native here.
    pub fn native(self) -> Architecture {
        match self {
            Self::X86_64 => Architecture::X86_64,
            Self::Aarch64 => Architecture::Aarch64,
        }
    }

    /// The architectures that a filter has sections for: the native one always, as libseccomp has it, and of those that
    /// the profile names the ones that can be executed here. The native one is first: its calls are the many.
    pub(super) fn architectures(self, named: &[Arch]) -> Vec<Architecture> {
        let foreign = match self {
            Self::X86_64 => [
                (Arch::ScmpArchX86, Architecture::X86),
                (Arch::ScmpArchX32, Architecture::X32),
            ]
            .as_slice(),
            Self::Aarch64 => [(Arch::ScmpArchArm, Architecture::Arm)].as_slice(),
        };
        let named = foreign.iter().filter(|(name, _)| named.contains(name));
        std::iter::once(self.native())
            .chain(named.map(|&(_, architecture)| architecture))
            .collect()
    }
}
