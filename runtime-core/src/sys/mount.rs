//! The parts of the fd-based mount API that rustix lacks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The mount is read-only (mount_setattr(2)).
pub const MOUNT_ATTR_RDONLY: u64 = 0x0000_0001;
/// set-user-ID and set-group-ID bits are ignored.
pub const MOUNT_ATTR_NOSUID: u64 = 0x0000_0002;
/// Device nodes cannot be opened.
pub const MOUNT_ATTR_NODEV: u64 = 0x0000_0004;
/// Programs cannot be executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x0000_0008;
/// The atime group: a mask, relatime is its zero.
pub const MOUNT_ATTR__ATIME: u64 = 0x0000_0070;
/// Ids are mapped by `userns`.
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// What [`set_attributes`] changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr<'a> {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0 for unchanged.
    pub propagation: u64,
    /// The user namespace of MOUNT_ATTR_IDMAP.
    pub userns: Option<BorrowedFd<'a>>,
}

#[repr(C)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// The type of a tmpfs, as statfs(2) tells it.
pub const TMPFS_MAGIC: u64 = 0x0102_1994;

/// mount_setattr(2) on the mount that `mount` refers to, and on all below it if `recursive`.
pub fn set_attributes(mount: impl AsFd, recursive: bool, attr: MountAttr<'_>) -> io::Result<()> {
    let raw = RawMountAttr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads the live struct of the size given, and an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    };
    super::check(result).map(drop)
}

/// pivot_root(".", "."): the current directory becomes the root, with the old root on top of it (pivot_root(2), NOTES).
pub fn pivot_here() -> io::Result<()> {
    // SAFETY: two live C strings.
    super::check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}
