//! landlock(7): a domain that a process can put itself and all that it forks into, and never leave.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Executing a file (landlock.h).
pub const ACCESS_FS_EXECUTE: u64 = 1 << 0;
/// Opening a file for writing.
pub const ACCESS_FS_WRITE_FILE: u64 = 1 << 1;
/// Opening a file for reading.
pub const ACCESS_FS_READ_FILE: u64 = 1 << 2;
/// Opening a directory.
pub const ACCESS_FS_READ_DIR: u64 = 1 << 3;
/// Removing and making entries of directories, of every kind: LANDLOCK_ACCESS_FS_REMOVE_DIR to
/// LANDLOCK_ACCESS_FS_MAKE_SYM.
pub const ACCESS_FS_CHANGE_DIR: u64 = 0x1ff << 4;
/// Renaming and linking across directories: denied by every domain of a kernel with ABI 1, and by those that handle it.
pub const ACCESS_FS_REFER: u64 = 1 << 13;
/// Cutting a file; ABI 3.
pub const ACCESS_FS_TRUNCATE: u64 = 1 << 14;
/// ioctl(2) on devices, but for what works on every file; ABI 5.
pub const ACCESS_FS_IOCTL_DEV: u64 = 1 << 15;
/// What a rule for a file that is no directory may allow; more of it is EINVAL.
pub const ACCESS_FILE: u64 =
    ACCESS_FS_EXECUTE | ACCESS_FS_WRITE_FILE | ACCESS_FS_READ_FILE | ACCESS_FS_TRUNCATE | ACCESS_FS_IOCTL_DEV;
/// bind(2) of TCP sockets; ABI 4.
pub const ACCESS_NET_BIND_TCP: u64 = 1 << 0;
/// connect(2) of TCP sockets; ABI 4.
pub const ACCESS_NET_CONNECT_TCP: u64 = 1 << 1;
/// Connecting to abstract sockets that were made outside the domain; ABI 6.
pub const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
/// Signalling processes outside the domain; ABI 6.
pub const SCOPE_SIGNAL: u64 = 1 << 1;

/// LANDLOCK_CREATE_RULESET_VERSION.
const VERSION: libc::c_uint = 1;
/// LANDLOCK_RULE_PATH_BENEATH.
const PATH_BENEATH: libc::c_uint = 1;
/// LANDLOCK_RULE_NET_PORT.
const NET_PORT: libc::c_uint = 2;

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

/// struct landlock_net_port_attr.
#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
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
    /// One that denies the accesses `fs` to files and `net` to ports, wherever no rule allows them, and what `scoped`
    /// names.
    pub fn new(fs: u64, net: u64, scoped: u64) -> io::Result<Self> {
        let attr = RulesetAttr {
            handled_access_fs: fs,
            handled_access_net: net,
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

    /// Allows the accesses `net` to a port.
    pub fn allow_port(&self, port: u16, net: u64) -> io::Result<()> {
        let attr = NetPortAttr {
            allowed_access: net,
            port: port.into(),
        };
        let ruleset = self.0.as_raw_fd();
        // SAFETY: the kernel reads the live struct, whose layout the kind of rule names.
        let result = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, NET_PORT, &raw const attr, 0) };
        super::check(result).map(drop)
    }

    /// Puts this thread, and whatever it makes, into the domain.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the thread's user namespace and without no_new_privs; E2BIG in the sixteenth
    /// domain.
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
            let ruleset = Ruleset::new(ACCESS_FS_EXECUTE | ACCESS_FS_REFER, 0, scoped).unwrap();
            ruleset
                .allow(std::fs::File::open("/").unwrap(), ACCESS_FS_EXECUTE)
                .unwrap();
            // What the ruleset does not handle cannot be allowed.
            assert!(ruleset.allow(std::fs::File::open("/").unwrap(), 1 << 1).is_err());
        }
        if abi() >= 4 {
            let ruleset = Ruleset::new(0, ACCESS_NET_BIND_TCP, 0).unwrap();
            ruleset.allow_port(80, ACCESS_NET_BIND_TCP).unwrap();
            assert!(ruleset.allow_port(80, ACCESS_NET_CONNECT_TCP).is_err());
        }
    }
}
