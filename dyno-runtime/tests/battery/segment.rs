//! What the test's own process asks of the kernel that no library wraps: a System V segment, a key, Landlock's version.

use std::{io, sync::OnceLock};

use anyhow::{Context, Result};

/// A shared segment that everybody may read; removed when dropped.
#[derive(Debug)]
pub struct Segment {
    pub key: u32,
    id: i32,
}

impl Segment {
    pub fn new(key: u32) -> Result<Self> {
        const SIZE: usize = 4096;
        // SAFETY: takes numbers.
        let id = unsafe { libc::shmget(key.cast_signed(), SIZE, libc::IPC_CREAT | libc::IPC_EXCL | 0o644) };
        if id < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("shmget({key:#x})"));
        }
        let segment = Self { key, id };
        // SAFETY: the kernel chooses an address; the segment is SIZE bytes.
        unsafe {
            let at = libc::shmat(id, std::ptr::null(), 0);
            if at as isize == -1 {
                return Err(io::Error::last_os_error()).context("shmat");
            }
            std::ptr::copy_nonoverlapping(b"canary".as_ptr(), at.cast::<u8>(), 6);
            libc::shmdt(at);
        }
        Ok(segment)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no buffer.
        let removed = unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
        assert!(removed == 0, "a segment of the test was not removed");
    }
}

/// A new session keyring for the calling thread and what it starts, with a key in it; gone with the last of them. Where the kernel has
/// no keyrings there is nothing to make.
pub fn own_session_with_key() -> Result<()> {
    const JOIN: libc::c_ulong = 1;
    const SESSION: libc::c_long = -3;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN, 0) };
    if joined < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        return Ok(());
    }
    // SAFETY: NUL-ended strings and six bytes.
    let added = unsafe { libc::syscall(libc::SYS_add_key, c"user".as_ptr(), c"dyno-battery".as_ptr(), b"canary".as_ptr(), 6usize, SESSION) };
    if joined < 0 || added < 0 { Err(io::Error::last_os_error()).context("a session keyring with a key") } else { Ok(()) }
}

/// Landlock's ABI, 0 for none.
pub fn landlock_abi() -> u32 {
    static ABI: OnceLock<u32> = OnceLock::new();
    // SAFETY: asks for the version, with no attributes.
    *ABI.get_or_init(|| u32::try_from(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) }).unwrap_or(0))
}
