//! landlock(7): a domain that a process can put itself and all that it forks into, and never leave.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Executing a file (landlock.h).
pub const ACCESS_FS_EXECUTE: u64 = 1 << 0;
/// Renaming and linking across directories: denied by every domain of a kernel with ABI 1, and by those that handle it.
pub const ACCESS_FS_REFER: u64 = 1 << 13;
/// Connecting to abstract sockets that were made outside the domain; ABI 6.
pub const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;

/// LANDLOCK_CREATE_RULESET_VERSION.
const VERSION: libc::c_uint = 1;
/// LANDLOCK_RULE_PATH_BENEATH.
const PATH_BENEATH: libc::c_uint = 1;

/// struct landlock_ruleset_attr. Kernels that know less of it take it while what they do not know is zero.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The kernel's ABI of Landlock, 0 where it has none or it is switched off.
pub fn abi() -> u32 {
    // SAFETY: with this flag the kernel reads no attributes.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// A domain in the making.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// One that denies the accesses `fs` to files, wherever no rule allows them, and what `scoped` names.
    pub fn new(fs: u64, scoped: u64) -> io::Result<Self> {
        let attr = RulesetAttr {
            handled_access_fs: fs,
            handled_access_net: 0,
            scoped,
        };
        // SAFETY: the kernel reads the live struct of the size given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attr,
                size_of::<RulesetAttr>(),
                0,
            )
        };
        let fd = super::check(fd)?;
        // SAFETY: a new fd (close-on-exec), which is nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Allows the accesses `fs` to `beneath` and everything below it.
    pub fn allow(&self, beneath: impl AsFd, fs: u64) -> io::Result<()> {
        let attr = PathBeneathAttr {
            allowed_access: fs,
            parent_fd: beneath.as_fd().as_raw_fd(),
        };
        let ruleset = self.0.as_raw_fd();
        // SAFETY: the kernel reads the live struct, whose layout the kind of rule names.
        let result = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, &raw const attr, 0) };
        super::check(result).map(drop)
    }

    /// Puts this thread, and whatever it makes, into the domain.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the thread's user namespace and without no_new_privs; E2BIG in the sixteenth domain.
    pub fn restrict_self(self) -> io::Result<()> {
        // SAFETY: a live fd and a number.
        super::check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_landlock_makes_rulesets_as_far_as_its_abi_goes() {
        let scoped = if abi() >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET } else { 0 };
        if abi() >= 2 {
            let ruleset = Ruleset::new(ACCESS_FS_EXECUTE | ACCESS_FS_REFER, scoped).unwrap();
            ruleset
                .allow(std::fs::File::open("/").unwrap(), ACCESS_FS_EXECUTE)
                .unwrap();
            // What the ruleset does not handle cannot be allowed.
            assert!(ruleset.allow(std::fs::File::open("/").unwrap(), 1 << 1).is_err());
        }
    }
}
