//! Programs and data in memory files that nobody can change any more (CVE-2019-5736).

use std::os::fd::OwnedFd;

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

/// What a finished memory file is sealed against.
pub const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A sealed memory file that can be executed and holds `parts`, one after the other.
///
/// # Errors
/// Of memfd_create(2) (EACCES where `vm.memfd_noexec` forbids it), write(2), fcntl(F_ADD_SEALS).
pub fn program_in_memory(name: &str, parts: &[&[u8]]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC since Linux 6.3; before, memory files are always executable.
    let fd = match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    fill(fd, parts)
}

/// The same with data that is only read.
///
/// # Errors
/// Of memfd_create(2), write(2), fcntl(F_ADD_SEALS).
pub fn data_in_memory(name: &str, data: &[u8]) -> Result<OwnedFd, Errno> {
    fill(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?, &[data])
}

fn fill(fd: OwnedFd, parts: &[&[u8]]) -> Result<OwnedFd, Errno> {
    for part in parts {
        let mut left = *part;
        while !left.is_empty() {
            let n = rustix::io::write(&fd, left)?;
            left = &left[n..];
        }
    }
    fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}
