//! mount_setattr(2), the one call of the new mount API that rustix lacks.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::Errno;

/// MOUNT_ATTR_RDONLY.
pub const RDONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID.
pub const NOSUID: u64 = 0x2;
/// MOUNT_ATTR_NODEV.
pub const NODEV: u64 = 0x4;
/// MOUNT_ATTR_NOEXEC.
pub const NOEXEC: u64 = 0x8;
/// MOUNT_ATTR_IDMAP: ids are translated by the user namespace `userns_fd`.
pub const IDMAP: u64 = 0x0010_0000;

/// MS_PRIVATE, as propagation: what is mounted below stays there, and nothing mounted elsewhere appears.
pub const PRIVATE: u64 = libc::MS_PRIVATE;

/// `struct mount_attr` (mount_setattr(2), Linux 5.12).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation type, MS_PRIVATE and friends.
    pub propagation: u64,
    /// User namespace for [`IDMAP`].
    pub userns_fd: u64,
}

/// Changes the attributes of the mount at `fd` + `path` (empty: of `fd` itself). Child-safe.
///
/// # Errors
/// Of mount_setattr(2).
pub fn mount_setattr(fd: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: &MountAttr) -> Result<(), Errno> {
    const AT_RECURSIVE: i32 = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is NUL-ended and `attr` has the kernel's layout; both outlive the call.
    let r = unsafe { libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), path.as_ptr(), flags, std::ptr::from_ref(attr), size_of::<MountAttr>()) };
    super::check(r).map(drop)
}
