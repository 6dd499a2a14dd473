//! Landlock (landlock(7), Linux 5.13): walls that a process puts around itself and cannot take down.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;

/// LANDLOCK_ACCESS_FS_*: making device files.
pub const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11; // MAKE_CHAR, MAKE_BLOCK
/// Moving and linking from one directory to another (ABI 2, Linux 5.19). Denied by every ruleset that does not allow it.
pub const REFER: u64 = 1 << 13;
/// LANDLOCK_ACCESS_FS_WRITE_FILE.
pub const WRITE_FILE: u64 = 1 << 1;
/// Everything that changes files, but for [`MAKE_DEVICES`] and [`REFER`]: WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG,
/// MAKE_SOCK, MAKE_FIFO, MAKE_SYM.
pub const WRITE: u64 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12;
/// Cutting files (ABI 3, Linux 6.2).
pub const TRUNCATE: u64 = 1 << 14;
/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET (ABI 6, Linux 6.12).
pub const SCOPE_ABSTRACT_SOCKETS: u64 = 1;

/// Rights by what they are for, where all that a process does is to be held and not only what a mount leaves open.
pub mod access {
    /// LANDLOCK_ACCESS_FS_READ_FILE.
    pub const READ_FILE: u64 = 1 << 2;
    /// LANDLOCK_ACCESS_FS_MAKE_SOCK.
    pub const MAKE_SOCK: u64 = 1 << 9;
    /// Every right to files up to ABI 5: EXECUTE to MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV.
    pub const FILES: u64 = (1 << 16) - 1;
    /// READ_FILE, READ_DIR, WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER, TRUNCATE.
    pub const KEEP_FILES: u64 = READ_FILE | 1 << 3 | super::WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | super::REFER | super::TRUNCATE;
    /// What a rule for anything but a directory may name.
    pub const OF_A_FILE: u64 = READ_FILE | super::WRITE_FILE | super::TRUNCATE;
    /// LANDLOCK_ACCESS_NET_CONNECT_TCP (ABI 4, Linux 6.7).
    pub const CONNECT: u64 = 1 << 1;
    /// CONNECT, LANDLOCK_ACCESS_NET_BIND_TCP.
    pub const PORTS: u64 = CONNECT | 1;
    /// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL (ABI 6, Linux 6.12).
    pub const SCOPES: u64 = super::SCOPE_ABSTRACT_SOCKETS | 1 << 1;
}

/// What a ruleset denies where nothing is allowed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Handled {
    /// Accesses to files.
    pub files: u64,
    /// Uses of TCP ports.
    pub ports: u64,
    /// Ways to other processes.
    pub scoped: u64,
}

/// `struct landlock_ruleset_attr` of ABI 6.
#[repr(C)]
#[derive(Default)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// What a thread is about to give up.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

/// The kernel's Landlock ABI, 0 where it has none (ENOSYS) or has it switched off (`lsm=`, EOPNOTSUPP). Child-safe.
///
/// # Errors
/// Of landlock_create_ruleset(2): any other answer does not say that there is no such wall to be raised.
pub fn landlock_abi() -> Result<u32, Errno> {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag the call takes no attributes.
    match check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) }) {
        Ok(abi) => u32::try_from(abi).map_err(|_| Errno::RANGE),
        Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(0),
        Err(e) => Err(e),
    }
}

impl Ruleset {
    /// A ruleset that denies the accesses `handled` to files everywhere, until [`Self::allow`], and shuts the `scoped` ways to others.
    /// What the kernel's `abi` does not know is left out. Child-safe.
    ///
    /// # Errors
    /// Of landlock_create_ruleset(2).
    pub fn new(abi: u32, handled: u64, scoped: u64) -> Result<Self, Errno> {
        Self::over(abi, Handled { files: handled, scoped, ..Handled::default() })
    }

    /// [`Self::new`] for ports as well. Child-safe.
    ///
    /// # Errors
    /// Of landlock_create_ruleset(2).
    pub fn over(abi: u32, handled: Handled) -> Result<Self, Errno> {
        let attr = RulesetAttr {
            handled_access_fs: known(abi, handled.files),
            handled_access_net: if abi >= 4 { handled.ports } else { 0 },
            scoped: if abi >= 6 { handled.scoped } else { 0 },
        };
        // Older kernels take the shorter struct, or a longer one whose rest is zero.
        // SAFETY: `attr` has the kernel's layout and the size that is said.
        let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Allows `access` at and below `place`. Child-safe.
    ///
    /// # Errors
    /// Of landlock_add_rule(2).
    pub fn allow(&self, abi: u32, place: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
        const PATH_BENEATH: libc::c_ulong = 1;
        let rule = PathBeneath { allowed_access: known(abi, access), parent_fd: place.as_raw_fd() };
        // SAFETY: `rule` has the kernel's layout.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), PATH_BENEATH, &raw const rule, 0) }).map(drop)
    }

    /// Allows TCP connections to `port`, at any address. Child-safe.
    ///
    /// # Errors
    /// Of landlock_add_rule(2): EINVAL before ABI 4.
    pub fn allow_connecting(&self, port: u16) -> Result<(), Errno> {
        const NET_PORT: libc::c_ulong = 2;
        let rule = NetPort { allowed_access: access::CONNECT, port: u64::from(port) };
        // SAFETY: `rule` has the kernel's layout.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), NET_PORT, &raw const rule, 0) }).map(drop)
    }

    /// From here on the calling thread, and all that it starts, is held by it. Child-safe.
    ///
    /// # Errors
    /// Of landlock_restrict_self(2): EPERM without no_new_privs.
    pub fn restrict_self(self) -> Result<(), Errno> {
        // SAFETY: takes numbers only.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) }).map(drop)
    }
}

fn known(abi: u32, access: u64) -> u64 {
    /// LANDLOCK_ACCESS_FS_IOCTL_DEV.
    const IOCTL_DEV: u64 = 1 << 15;
    let since = [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)];
    since.iter().filter(|(needed, _)| abi < *needed).fold(access, |access, (_, right)| access & !right)
}
