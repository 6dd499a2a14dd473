//! dyno-init: pid 1 of every dyno.
//!
//! It starts the app, reaps whatever is orphaned, passes signals on to all processes, carries the
//! app's output to the log FIFO without ever blocking (what does not fit is counted and dropped),
//! ends everything when a limit of the whole run is reached, and leaves an exit record. It is entered with every wall already up: no privileges, its seccomp
//! filter and identity are the app's own. A static binary without libc, so that an idle dyno costs
//! a handful of pages.
//!
//! ```text
//! dyno-init MODE PROGRAM ARG0 ARG…
//! MODE: l (log), r (pipes, counted), p (pass the streams on), t (terminal), in capitals: start at once; K: start what comes over
//!       descriptor 0 (see `park`); then, with spaces between, the limits of the run, 0 for
//!       none: wall microseconds, processor microseconds, bytes of output; and the number of processors
//! fds:  0-2 streams, 3 log FIFO, 4 exit record, 5 line to the platform: a byte says go (at once: that the start was written down), four
//!       bytes answer what execve said (K: that a process waits, or why none does),
//!       6 what the control group used of the processors (cpuacct.usage or cpu.stat), 7 requests of the platform (see `control`),
//!       8 its other end, from where the platform takes a copy when it has a request
//!
//!   start ─▶ go ─▶ exec ok ─▶ relay, watch ─▶ main exited ─▶ kill the rest, drain ─▶ record ─▶ exit
//!      │         │                 └─▶ limit reached: kill all, then as when main has exited
//!      │         └─▶ exec failed: errno to fd 5, record with 126 or 127 ─▶ exit
//!      └─▶ end of file: whoever started us died before anything ran ─▶ exit
//! ```

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

mod control;
mod park;
mod relay;
mod start;
mod sys;
mod watch;

use core::ptr::addr_of_mut;

use control::Control;
use relay::Relay;
use start::{Start, bytes};
use watch::Watch;

const LOG: i32 = 3;
const RECORD: i32 = 4;
const READY: i32 = 5;
const CPU: i32 = 6;
const REQUESTS: i32 = 7;
const REQUESTS_PEER: i32 = 8;
const EAGAIN: isize = -11;
const EINTR: isize = -4;
const SIGKILL: usize = 9;
const SIGCHLD: u32 = 17;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(125)
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, 0", "mov x0, sp", "bl {main}", "brk 1", main = sym main);

unsafe extern "C" fn main(sp: *const usize) -> ! {
    // SAFETY: the kernel puts argc, argv (NULL-ended) and envp (NULL-ended) at the initial stack pointer;
    // the runtime always passes at least MODE, PROGRAM and ARG0.
    let (mode, program, argv, envp) = unsafe {
        let argc = sp.read();
        let argv = sp.add(1).cast::<*const u8>();
        if argc < 4 {
            sys::exit(125);
        }
        (bytes(argv.add(1).read()), argv.add(2).read(), argv.add(3), argv.add(argc + 1))
    };
    for fd in [LOG, RECORD, READY, CPU, REQUESTS, REQUESTS_PEER] {
        sys::set_cloexec(fd);
    }
    #[cfg(break_walls)]
    // SAFETY: the NULL-ended vector of the kernel.
    let dumpable = unsafe { start::dumpable(envp) };
    #[cfg(not(break_walls))]
    let dumpable = false;
    // SAFETY: PR_SET_DUMPABLE (4) takes a number. The app, of the same uid, can then not read our memory or fds.
    if unsafe { sys::call3(sys::PRCTL, 4, usize::from(dumpable), 0) } != 0 {
        sys::exit(125);
    }
    // PR_SET_NAME (15): else it goes by the name of the memory file that it came from, or by a descriptor's number.
    // SAFETY: a NUL-ended string.
    unsafe { sys::call3(sys::PRCTL, 15, c"dyno-init".as_ptr() as usize, 0) };
    let signals = block_and_watch_signals();
    if signals < 0 {
        sys::exit(125);
    }
    let (kind, limits) = mode.split_first().unwrap_or((&b'p', &[]));
    let (waits, kind) = (kind.is_ascii_lowercase(), &kind.to_ascii_lowercase());
    let parked = *kind == b'k';
    let relayed = matches!(kind, b'l' | b'r' | b'k');
    let (out, err) = if relayed { (pipe(), pipe()) } else { ([-1, -1], [-1, -1]) };
    if waits && sys::read(READY, &mut [0u8; 1]) != 1 {
        sys::exit(125);
    }
    let mut course = Course { unknown: if waits { -1 } else { READY }, began: sys::now_us(1), started: 0 };
    let (pid, pidfd) = if parked {
        (park::waiting(program, envp, [out[1], err[1]], [LOG, RECORD, READY, CPU, REQUESTS, REQUESTS_PEER, signals, out[0], err[0]]), -1)
    } else {
        Start { streams: [-1, out[1], err[1]], cwd: core::ptr::null(), leads: false, terminal: *kind == b't', program, argv, envp, failed: 0 }.run()
    };
    if pid < 0 {
        sys::write(READY, &((-pid) as i32).to_le_bytes());
        let status = if pid == -2 { 127 } else { 126 };
        record(status << 8, &course, [0, 0]);
        sys::exit(status);
    }
    course.started = sys::now_us(1) - course.began;
    // Whoever waits for that answer would wait for ever.
    if sys::write(READY, &0i32.to_le_bytes()) != 4 {
        kill_all();
        sys::exit(125);
    }
    for fd in [0, out[1], err[1], pidfd] {
        sys::close(fd);
    }
    if waits {
        sys::close(READY);
    }
    if *kind != b'r' {
        sys::close(1);
        sys::close(2);
    }
    let mut relay = Relay::new([out[0], err[0]], matches!(kind, b'l' | b'k'));
    let mut watch = Watch::new(limits, course.began);
    let mut control = Control;
    let status = run(signals, pid as i32, &mut course, &mut relay, &mut watch, &mut control);
    kill_all();
    while let Some((pid, status)) = reap(true) {
        control.ended(pid, status);
    }
    relay.drain(&mut watch);
    record(status, &course, [i64::from(relay.dropped), watch.breach]);
    sys::exit(if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) })
}

/// What is known of the run.
struct Course {
    /// Where the platform tells that it is written down; -1 once it has. Until then nobody else knows of this sandbox: should whoever
    /// started it die before, it goes too.
    unknown: i32,
    /// When the program was let go, microseconds of CLOCK_MONOTONIC, and how long its exec took.
    began: i64,
    started: i64,
}

impl Course {
    /// One byte; of a parked sandbox also when it was asked for, microseconds of CLOCK_MONOTONIC in eight, and how long exec took.
    fn becomes_known(&mut self) {
        let mut word = [0u8; 17];
        match sys::read(self.unknown, &mut word) {
            1 => {}
            17 => {
                let number = |at: usize| word[at..at + 8].iter().rev().fold(0i64, |sum, byte| sum << 8 | i64::from(*byte));
                (self.began, self.started) = (number(1), number(9));
            }
            _ => kill_all(),
        }
        sys::close(self.unknown);
        self.unknown = -1;
    }
}

/// Waits for signals, output, limits and requests until the main process has ended; its wait status.
fn run(signals: i32, main: i32, course: &mut Course, relay: &mut Relay, watch: &mut Watch, control: &mut Control) -> i32 {
    loop {
        if relay.is_over(watch) | watch.over() {
            // Its end is reported like any other.
            kill_all();
        }
        let mut fds = [[signals, 1], [REQUESTS, 1], [-1, 0], [-1, 0], [-1, 0], [course.unknown, 1]];
        relay.wanted(&mut fds[2..5]);
        poll(&mut fds, watch.patience());
        relay.ready(&fds[2..5], watch);
        if fds[5][1] >> 16 != 0 {
            course.becomes_known();
        }
        if fds[1][1] >> 16 != 0 {
            control.serve();
        }
        if fds[0][1] >> 16 == 0 {
            continue;
        }
        let mut info = [0u8; 128];
        match sys::read(signals, &mut info) {
            128 => {}
            EAGAIN | EINTR => continue,
            // Deaf, it would never learn of an end.
            _ => {
                kill_all();
                sys::exit(125);
            }
        }
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let (signal, sender) = (word(0), word(12)); // ssi_signo, ssi_pid
        if signal == SIGCHLD {
            while let Some((pid, status)) = reap(false) {
                if pid == main {
                    return status;
                }
                control.ended(pid, status);
            }
        } else if sender == 0 {
            // From outside this pid namespace: the platform. The app's own signals to pid 1 are not obeyed.
            // SAFETY: takes no pointers.
            unsafe { sys::call3(sys::KILL, usize::MAX, signal as usize, 0) };
        }
    }
}

/// SIGKILL to every process of this pid namespace but ourselves.
fn kill_all() {
    // SAFETY: takes no pointers.
    unsafe { sys::call3(sys::KILL, usize::MAX, SIGKILL, 0) };
}

/// ppoll(2): descriptor, then events and revents as two halves; `patience` in microseconds, none if negative.
fn poll(fds: &mut [[i32; 2]], patience: i64) {
    let time = [patience / 1_000_000, patience % 1_000_000 * 1000];
    let timeout = if patience < 0 { 0 } else { time.as_ptr() as usize };
    // SAFETY: `fds` has the layout of struct pollfd, `time` that of struct timespec.
    unsafe { sys::call(sys::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), timeout, 0, 0, 0]) };
}

/// One ended child and its wait status. With `block`, waits for one while there are children.
fn reap(block: bool) -> Option<(i32, i32)> {
    let mut status = 0i32;
    let options = usize::from(!block); // WNOHANG
    loop {
        // SAFETY: `status` is valid for writing; no rusage is asked for.
        let pid = unsafe { sys::call(sys::WAIT4, [usize::MAX, addr_of_mut!(status) as usize, options, 0, 0, 0]) };
        match pid {
            EINTR => {}
            1.. => return Some((pid as i32, status)),
            _ => return None,
        }
    }
}

/// The signalfd. Whoever started the platform may have ignored some signals (a shell's background jobs: SIGINT; Rust programs:
/// SIGPIPE), and ignored they stay through clone3's CLEAR_SIGHAND and execve, for us and for the app: an ignored SIGCHLD would
/// never tell of its end.
fn block_and_watch_signals() -> i32 {
    let default = [0usize; 4]; // struct sigaction: SIG_DFL, no flags, no restorer, empty mask
    for signal in 1..=64 {
        // SAFETY: `default` has the kernel's layout. SIGKILL and SIGSTOP answer EINVAL.
        unsafe { sys::call(sys::RT_SIGACTION, [signal, default.as_ptr() as usize, 0, 8, 0, 0]) };
    }
    // SIGPIPE and faults stay ours to die of; everything else arrives through the signalfd.
    let mask: u64 = !(1 << (8 - 1) | 1 << (11 - 1) | 1 << (7 - 1) | 1 << (4 - 1));
    // SAFETY: `mask` is a 64-bit kernel sigset; SIG_SETMASK is 2; flags are SFD_NONBLOCK | SFD_CLOEXEC.
    unsafe {
        sys::call(sys::RT_SIGPROCMASK, [2, &raw const mask as usize, 0, 8, 0, 0]);
        sys::call(sys::SIGNALFD4, [usize::MAX, &raw const mask as usize, 8, 0o2004000, 0, 0]) as i32
    }
}

fn pipe() -> [i32; 2] {
    let mut fds = [-1i32; 2];
    // SAFETY: `fds` is valid for writing; O_CLOEXEC.
    if unsafe { sys::call3(sys::PIPE2, fds.as_mut_ptr() as usize, 0o2000000, 0) } < 0 {
        sys::exit(125);
    }
    // SAFETY: F_SETFL (4) takes a number; only our end must not block.
    if unsafe { sys::call3(sys::FCNTL, fds[0] as usize, 4, 0o4000) } < 0 {
        sys::exit(125);
    }
    fds
}

/// Leaves the exit record: magic, wait status, cpu and wall time in microseconds, peak resident kilobytes; the lines whose loss
/// the log could not be told of because it was full to the end; the limit that was reached; the microseconds from go to exec.
fn record(status: i32, course: &Course, [dropped, breach]: [i64; 2]) {
    let mut usage = [0i64; 18]; // struct rusage: utime, stime, maxrss, …
    // SAFETY: `usage` has the size of struct rusage; RUSAGE_CHILDREN is -1.
    unsafe { sys::call3(sys::GETRUSAGE, usize::MAX, usage.as_mut_ptr() as usize, 0) };
    let cpu = (usage[0] + usage[2]) * 1_000_000 + usage[1] + usage[3];
    let mut bytes = [0u8; 56];
    bytes[0..4].copy_from_slice(b"DXIT");
    bytes[4..8].copy_from_slice(&status.to_le_bytes());
    let words = [cpu, sys::now_us(1) - course.began, usage[4], dropped, breach, course.started];
    for (to, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    // SAFETY: `bytes` is valid for reading; offset 0.
    unsafe { sys::call(sys::PWRITE64, [RECORD as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) };
}
