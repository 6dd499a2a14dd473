//! The system calls without which nothing can be isolated here, asked for before anything is made.
//!
//! Each is called with arguments that it refuses before it does anything; only ENOSYS means that it is not there. That is
//! the answer of an older kernel, and of the filter of a container or service around this process that does not know the call.

use rustix::io::Errno;

/// A call, and the Linux that has it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Linux 5.2 is `(5, 2)`.
    pub since: (u8, u8),
    number: libc::c_long,
    arguments: [libc::c_long; 5],
}

/// No descriptor.
const NONE: libc::c_long = -1;

const fn call(name: &'static str, since: (u8, u8), number: libc::c_long, arguments: [libc::c_long; 5]) -> Call {
    Call { name, since, number, arguments }
}

/// What there is no substitute for.
const NEEDED: [Call; 8] = [
    call("memfd_create", (3, 17), libc::SYS_memfd_create, [0; 5]),
    call("pidfd_send_signal", (5, 1), libc::SYS_pidfd_send_signal, [NONE, 0, 0, 0, 0]),
    call("fsopen", (5, 2), libc::SYS_fsopen, [0; 5]),
    call("fsconfig", (5, 2), libc::SYS_fsconfig, [NONE, 0, 0, 0, 0]),
    call("fsmount", (5, 2), libc::SYS_fsmount, [NONE, 0, 0, 0, 0]),
    call("open_tree", (5, 2), libc::SYS_open_tree, [NONE, 0, 0, 0, 0]),
    call("move_mount", (5, 2), libc::SYS_move_mount, [NONE, 0, NONE, 0, 0]),
    call("mount_setattr", (5, 12), libc::SYS_mount_setattr, [NONE, 0, 0, 0, 0]),
];

/// The first needed call that is not there.
pub fn first_missing() -> Option<Call> {
    NEEDED.into_iter().find(|call| !call.is_there())
}

/// Whether a call is one of those that [`first_missing`] makes: no step of a start begins with no descriptor or no name.
#[cfg(test)]
pub fn is_question(number: i64, first: u64) -> bool {
    NEEDED.iter().any(|call| call.number == number && call.arguments[0] as u64 == first)
}

impl Call {
    /// Whether the kernel answers it.
    pub fn is_there(&self) -> bool {
        let [a, b, c, d, e] = self.arguments;
        // SAFETY: descriptors that are none and null pointers, which every one of these refuses (EBADF, EFAULT, EINVAL, EPERM).
        super::check(unsafe { libc::syscall(self.number, a, b, c, d, e) }) != Err(Errno::NOSYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_the_questions_does_anything() {
        for call in NEEDED {
            let [a, b, c, d, e] = call.arguments;
            // SAFETY: as in `is_there`.
            let answer = super::super::check(unsafe { libc::syscall(call.number, a, b, c, d, e) });
            assert!(matches!(answer, Err(Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::PERM | Errno::NOSYS)), "{}: {answer:?}", call.name);
        }
    }
}
