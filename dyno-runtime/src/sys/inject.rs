//! For tests: makes the k-th of certain system calls fail, of one thread and of everything that it starts.
//!
//! A filter on the thread hands every such call to a supervisor (seccomp_unotify(2), Linux 5.5), which lets it go on or answers an
//! errno. Filters are inherited through clone3 and execve, so one counter sees the parent, the child that shares its memory,
//! and the init, in the order in which they run.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

pub use super::notify::Call;
use super::{Filter, notify};

/// From now on the calls `numbers` of this thread and its children wait for an answer through the returned descriptor.
pub fn watch(numbers: &[i64]) -> Result<OwnedFd, Errno> {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06;
    let mut program = vec![Filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 }];
    for number in numbers {
        let number = u32::try_from(*number).map_err(|_| Errno::INVAL)?;
        program.push(Filter { code: IF_EQUAL, jt: 0, jf: 1, k: number });
        program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF });
    }
    program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    notify::listen(&program)
}

/// The next call. ENOENT when its caller was killed meanwhile.
pub fn receive(listener: &OwnedFd) -> Result<Call, Errno> {
    notify::receive(listener.as_fd())
}

/// Lets `call` go on, or fail.
pub fn answer(listener: &OwnedFd, call: &Call, errno: Option<Errno>) -> Result<(), Errno> {
    notify::answer(listener.as_fd(), call, errno)
}
