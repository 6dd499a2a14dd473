//! Loop devices: a block device over an open file, freed by the kernel with its last user.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::{fs::OFlags, io::Errno};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config` of linux/loop.h (Linux 5.8): fd, block size, `struct loop_info64`, reserved.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What may be done with a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopAccess {
    /// Reading.
    Read,
    /// Writing too; `file` must be open for it. Through the page cache of the file: with direct I/O (LO_FLAGS_DIRECT_IO) each block
    /// that is given back (discard) takes 20 times as long.
    Write,
}

/// Attaches `file` to a free loop device; its number and the open device. The device frees itself
/// (LO_FLAGS_AUTOCLEAR) once it is neither open nor mounted.
///
/// # Errors
/// Of /dev/loop-control and LOOP_CONFIGURE; EBUSY after 64 lost races for a free device.
pub fn attach_loop(file: BorrowedFd<'_>, name: &str, access: LoopAccess) -> Result<(u32, OwnedFd), Errno> {
    let control = open("/dev/loop-control")?;
    let mut file_name = [0u8; 64];
    for (to, from) in file_name.iter_mut().take(63).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: plain numbers and byte arrays; zero is valid for all of them.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    config.info.flags = LO_FLAGS_AUTOCLEAR | if access == LoopAccess::Read { LO_FLAGS_READ_ONLY } else { 0 };
    config.info.file_name = file_name;
    for _ in 0..64 {
        // SAFETY: takes no argument.
        let number = super::check(libc::c_long::from(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }))?;
        let device = match open(&format!("/dev/loop{number}")) {
            Err(Errno::NXIO) => continue, // somebody else took it, and is just leaving it
            other => other?,
        };
        // SAFETY: `config` has the layout of struct loop_config and outlives the call.
        let r = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        match super::check(libc::c_long::from(r)) {
            Ok(_) => return Ok((u32::try_from(number).map_err(|_| Errno::RANGE)?, device)),
            Err(Errno::BUSY) => {} // somebody else took it
            Err(e) => return Err(e),
        }
    }
    Err(Errno::BUSY)
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, rustix::fs::Mode::empty())
}

const _: () = assert!(size_of::<LoopConfig>() == 304 && size_of::<LoopInfo64>() == 232);
