//! A sandbox that stands ready for a program that nobody has named yet: all but the last exec is done.
//!
//! Beside the init waits a second process, a copy of it, which is to become the program. It holds the end of a line (our descriptor 0 at the
//! start) and reads one message: a command as [`crate::control`] has it, with one descriptor (stdin; the output goes to the log) or three
//! (all streams). It execs; the line closes with that, or answers what execve said, in four bytes.

use core::ptr::addr_of_mut;

use crate::{
    control::{Rights, relocate},
    start::Start,
    sys,
};

/// Most bytes of a message. Untouched, and without a page, until one comes.
const MOST: usize = 64 * 1024;
static mut MESSAGE: [usize; MOST / 8] = [0; MOST / 8];

/// Starts the process that waits; its pid. `inits` are descriptors that are the init's alone.
pub fn waiting(output: [i32; 2], inits: &[i32]) -> isize {
    // SAFETY: this program has one thread, and the child goes on with a copy of all.
    match unsafe { sys::fork() } {
        0 => wait(output, inits),
        pid => pid,
    }
}

fn wait(output: [i32; 2], inits: &[i32]) -> ! {
    // The program may have few descriptors, and what comes needs some.
    for fd in inits {
        sys::close(*fd);
    }
    // SAFETY: F_DUPFD_CLOEXEC (1030) takes a number: the line must vanish with exec, which is its answer.
    let line = unsafe { sys::call3(sys::FCNTL, 0, 1030, 3) } as i32;
    let mut rights = Rights::none();
    // SAFETY: MESSAGE is used here only.
    let message = unsafe { core::slice::from_raw_parts_mut(addr_of_mut!(MESSAGE).cast::<usize>(), MOST / 8) };
    if line < 0 || crate::control::receive(line, message, &mut rights) < 24 {
        sys::exit(125);
    }
    let [stdin, stdout, stderr, ..] = rights.descriptors;
    let streams = if stdout < 0 { [stdin, output[0], output[1]] } else { [stdin, stdout, stderr] };
    // SAFETY: the platform lays the message out as told; it is as long as its own first word says, which was checked against what came.
    let errno = unsafe {
        let (cwd, program, argv, envp) = relocate(message.as_mut_ptr());
        Start { streams, cwd, terminal: false, program, argv, envp, failed: 0 }.become_program()
    };
    sys::write(line, &(errno as i32).to_le_bytes());
    sys::exit(if errno == 2 { 127 } else { 126 })
}
