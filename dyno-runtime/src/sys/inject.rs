//! For tests: makes the k-th of certain system calls fail, or hides calls, of one thread and of everything that it starts.
//!
//! A filter on the thread hands every such call to a supervisor (seccomp_unotify(2), Linux 5.5), which lets it go on or answers an
//! errno. Filters are inherited through clone3 and execve, so one counter sees the parent, the child that shares its memory,
//! and the init, in the order in which they run.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

pub use super::notify::Call;
use super::{Filter, check, notify};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_ANY: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06;

/// From now on the calls `numbers` of this thread and its children wait for an answer through the returned descriptor.
pub fn watch(numbers: &[i64]) -> Result<OwnedFd, Errno> {
    let mut program = vec![Filter { code: LOAD, jt: 0, jf: 0, k: 0 }];
    for number in numbers {
        let number = u32::try_from(*number).map_err(|_| Errno::INVAL)?;
        program.push(Filter { code: IF_EQUAL, jt: 0, jf: 1, k: number });
        program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF });
    }
    program.push(Filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    notify::listen(&program)
}

/// A call as another kernel would answer it.
#[derive(Debug, Clone, Copy)]
pub struct Hidden {
    /// Its number.
    pub number: i64,
    /// With which arguments.
    pub when: When,
    /// The answer.
    pub errno: Errno,
}

/// Arguments of a hidden call; only the lower 32 bits of one are looked at.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// Any.
    Always,
    /// The argument of this number has this value.
    Is(u8, u32),
    /// The argument of this number has one of these bits.
    Has(u8, u32),
}

/// From now on this thread and its children get the answers of `hidden`.
pub fn hide(hidden: &[Hidden]) -> Result<(), Errno> {
    let op = |code, jt, jf, k| Filter { code, jt, jf, k };
    let mut program = vec![op(LOAD, 0, 0, 0)];
    for Hidden { number, when, errno } in hidden {
        let number = u32::try_from(*number).map_err(|_| Errno::INVAL)?;
        let answer = op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.raw_os_error().cast_unsigned());
        // struct seccomp_data: number, architecture, instruction pointer, six arguments of 8 bytes.
        let of_argument = |argument: u8, condition| {
            [op(IF_EQUAL, 0, 4, number), op(LOAD, 0, 0, 16 + 8 * u32::from(argument)), condition, answer, op(LOAD, 0, 0, 0)]
        };
        match *when {
            When::Always => program.extend([op(IF_EQUAL, 0, 1, number), answer]),
            When::Is(argument, value) => program.extend(of_argument(argument, op(IF_EQUAL, 0, 1, value))),
            When::Has(argument, bits) => program.extend(of_argument(argument, op(IF_ANY, 0, 1, bits))),
        }
    }
    program.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    super::install_filter(&program)
}

/// From now on the call `number` of this thread and its children says 0 and does nothing.
pub fn pretend(number: i64) -> Result<(), Errno> {
    let op = |code, jt, jf, k| Filter { code, jt, jf, k };
    let number = u32::try_from(number).map_err(|_| Errno::INVAL)?;
    let program =
        [op(LOAD, 0, 0, 0), op(IF_EQUAL, 0, 1, number), op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO), op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)];
    super::install_filter(&program)
}

/// Whether a call that takes no such descriptor or size answers ENOSYS to this thread.
pub fn is_hidden(number: i64) -> bool {
    // SAFETY: no call that is hidden takes -1 for a pointer, a descriptor or a size.
    check(unsafe { libc::syscall(number, -1, -1, -1, -1, -1) }) == Err(Errno::NOSYS)
}

/// The next call. ENOENT when its caller was killed meanwhile.
pub fn receive(listener: &OwnedFd) -> Result<Call, Errno> {
    notify::receive(listener.as_fd())
}

/// Lets `call` go on, or fail.
pub fn answer(listener: &OwnedFd, call: &Call, errno: Option<Errno>) -> Result<(), Errno> {
    notify::answer(listener.as_fd(), call, errno)
}

/// getpid(2) in the way of a 32-bit program of a PC: its pid, or an errno below zero.
#[cfg(target_arch = "x86_64")]
pub fn getpid_of_32_bits() -> i32 {
    let mut answer = 20;
    // SAFETY: the call takes no arguments and touches no memory; the kernel keeps every register but this one and r8 to r11.
    unsafe { std::arch::asm!("int 0x80", inout("eax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _, options(nostack)) };
    answer
}
