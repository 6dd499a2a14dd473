//! A sandbox that stands ready for a program that nobody has named yet: all but the last exec is done.
//!
//! Beside the init waits a second process, in the init's memory, which is to become the program. It holds the end of a line (our descriptor 0 at the
//! start) and reads one message: a command as [`crate::control`] has it, with one descriptor (stdin; the output goes to the log) or three
//! (all streams). It execs; the line closes with that, or answers what execve said, in four bytes.

use core::ptr::addr_of_mut;

use crate::{
    control::{Rights, relocate},
    start::{Stack, Start, look_up},
    sys,
};

/// Most bytes of a message. Untouched, and without a page, until one comes.
const MOST: usize = 64 * 1024;
static mut MESSAGE: [usize; MOST / 8] = [0; MOST / 8];

/// What the process that waits begins with, and its stack: nothing else of the memory that it shares with the init is touched by both.
struct Beginning {
    program: *const u8,
    envp: *const *const u8,
    /// Where its output goes, unless its streams come with the command.
    output: [i32; 2],
    /// Descriptors that are the init's alone.
    inits: [i32; 9],
}
static mut BEGINNING: Beginning = Beginning { program: core::ptr::null(), envp: core::ptr::null(), output: [-1; 2], inits: [-1; 9] };
static mut STACK: Stack = Stack::new();

/// Starts the process that waits; its pid. `program` is what it is probably to become. In a memory of its own it would have one to take down
/// at its exec.
pub fn waiting(program: *const u8, envp: *const *const u8, output: [i32; 2], inits: [i32; 9]) -> isize {
    // SAFETY: called once; from here on BEGINNING and STACK are the child's.
    unsafe {
        addr_of_mut!(BEGINNING).write(Beginning { program, envp, output, inits });
        sys::beside_on(Stack::top(addr_of_mut!(STACK)), wait)
    }
}

unsafe extern "C" fn wait(_: usize) -> ! {
    // SAFETY: as `waiting` says.
    let Beginning { program, envp, output, inits } = unsafe { addr_of_mut!(BEGINNING).read() };
    // The program may have few descriptors, and what comes needs some.
    for fd in inits {
        sys::close(fd);
    }
    // SAFETY: F_DUPFD_CLOEXEC (1030) takes a number: the line must vanish with exec, which is its answer.
    let line = unsafe { sys::call3(sys::FCNTL, 0, 1030, 3) } as i32;
    let mut rights = Rights::none();
    // SAFETY: MESSAGE is used here only.
    let message = unsafe { core::slice::from_raw_parts_mut(addr_of_mut!(MESSAGE).cast::<usize>(), MOST / 8) };
    // What the kernel does the first time it does now: the session with its share of the processors, the way to the program that is
    // probably meant, the first page of the command.
    // SAFETY: no pointers; what the kernel gave to the init.
    let session = unsafe {
        look_up(program, envp);
        sys::call3(sys::SETSID, 0, 0, 0)
    };
    message[0] = 0;
    if session < 0 || line < 0 || crate::control::receive(line, message, &mut rights) < 24 {
        sys::exit(125);
    }
    let [stdin, stdout, stderr, ..] = rights.descriptors;
    let streams = if stdout < 0 { [stdin, output[0], output[1]] } else { [stdin, stdout, stderr] };
    // SAFETY: the platform lays the message out as told; it is as long as its own first word says, which was checked against what came.
    let errno = unsafe {
        let (cwd, program, argv, envp) = relocate(message.as_mut_ptr());
        Start { streams, cwd, leads: true, terminal: false, program, argv, envp, failed: 0 }.become_program()
    };
    sys::write(line, &(errno as i32).to_le_bytes());
    sys::exit(if errno == 2 { 127 } else { 126 })
}
