//! dyno-launch: the last moments of a container's first process before its program, in a process that holds nothing of the host's.
//!
//! The runtime's child executes it once everything else is done, from a sealed memory file. From then on `/proc/PID/exe` is this file, which
//! nobody can change (CVE-2019-5736), and the child's memory, with all that it knows of the host, is gone. It waits for `start` in a
//! handful of pages.
//!
//! ```text
//! dyno-launch PROGRAM ARG0 ARG…
//! argv[0]: numbers with a space between: the channel to the runtime, the FIFO of `start`, this program's own file; offset and number of
//!          instructions of a system-call filter in it, and its flags
//! ```
//!
//! Filter, then `r` to the runtime and `g` back (see `src/oci/channel.rs`), then a byte from the FIFO, then exec. What exec says if it
//! fails goes into the FIFO, where `start` reads it.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(dead_code, reason = "sys.rs is shared with the init")]

mod sys;

use core::ptr::addr_of_mut;

/// Most instructions that the kernel takes (BPF_MAXINSNS), of 8 bytes.
const MOST: usize = 4096 * 8;
static mut PROGRAM: [u64; MOST / 8] = [0; MOST / 8];

const PR_SET_DUMPABLE: usize = 4;
const SET_MODE_FILTER: usize = 1;

#[cfg(target_arch = "x86_64")]
const SECCOMP: usize = 317;
#[cfg(target_arch = "aarch64")]
const SECCOMP: usize = 277;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(1)
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, 0", "mov x0, sp", "bl {main}", "brk 1", main = sym main);

/// `struct sock_fprog`.
#[repr(C)]
struct Fprog {
    len: u16,
    filter: *const u64,
}

unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel's layout: argc, argv, NULL, envp, NULL.
    let (argv, envp) = unsafe { (stack.add(1).cast::<*const u8>(), stack.add(stack.read() + 2).cast::<*const u8>()) };
    // SAFETY: argv[0] is a NUL-ended string.
    let words = unsafe { bytes(argv.read()) };
    let mut numbers = words.split(|b| *b == b' ').map(number);
    let mut next = || numbers.next().flatten().unwrap_or_else(|| sys::exit(1));
    let (channel, start, image, offset, instructions, flags) = (next(), next(), next(), next(), next(), next());
    for fd in [channel, start, image] {
        sys::set_cloexec(fd as i32);
    }
    // SAFETY: numbers only.
    if unsafe { sys::call3(sys::PRCTL, PR_SET_DUMPABLE, 0, 0) } < 0 || (instructions > 0 && !filter(image, offset, instructions, flags)) {
        sys::exit(1);
    }
    let mut byte = [0];
    if sys::write(channel as i32, b"r") != 1 || read(channel, &mut byte) != 1 || byte != *b"g" || read(start, &mut byte) != 1 {
        sys::exit(1);
    }
    // SAFETY: argv has at least the program and its first argument, which the runtime has put there; both vectors end in NULL.
    let errno = unsafe { sys::call3(sys::EXECVE, argv.add(1).read() as usize, argv.add(2) as usize, envp as usize) };
    // SAFETY: as above.
    tell(start, unsafe { bytes(argv.add(1).read()) }, -errno);
    sys::exit(1)
}

fn number(word: &[u8]) -> Option<usize> {
    word.iter().try_fold(0usize, |sum, b| b.is_ascii_digit().then(|| sum * 10 + usize::from(b - b'0')))
}

fn read(fd: usize, buffer: &mut [u8]) -> isize {
    loop {
        match sys::read(fd as i32, buffer) {
            -4 => {} // EINTR
            other => return other,
        }
    }
}

/// Reads the filter and installs it.
fn filter(image: usize, offset: usize, instructions: usize, flags: usize) -> bool {
    let length = instructions * 8;
    if length > MOST {
        return false;
    }
    // SAFETY: PROGRAM is at least that long, and only used here.
    unsafe {
        let program = addr_of_mut!(PROGRAM).cast::<u64>();
        let read = sys::call(sys::PREAD64, [image, program as usize, length, offset, 0, 0]);
        let prog = Fprog { len: instructions as u16, filter: program };
        read == length as isize && sys::call3(SECCOMP, SET_MODE_FILTER, flags, &raw const prog as usize) >= 0
    }
}

/// `exec: "PROGRAM": words`, in the words that engines look for.
fn tell(start: usize, program: &[u8], errno: isize) {
    let words: &[u8] = match errno {
        1 => b"operation not permitted",
        2 => b"no such file or directory",
        7 => b"argument list too long",
        8 => b"exec format error",
        12 => b"cannot allocate memory",
        13 => b"permission denied",
        20 => b"not a directory",
        26 => b"text file busy",
        40 => b"too many levels of symbolic links",
        _ => b"execve failed",
    };
    let program = &program[..program.len().min(1024)];
    for part in [b"exec: \"".as_slice(), program, b"\": ", words] {
        sys::write(start as i32, part);
    }
}

/// # Safety
/// `s` is NUL-ended.
unsafe fn bytes<'a>(s: *const u8) -> &'a [u8] {
    // SAFETY: NUL-ended, says the caller.
    unsafe { core::slice::from_raw_parts(s, sys::strlen(s)) }
}
