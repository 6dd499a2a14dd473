//! Raw system calls for the init: no libc, no std, nothing that needs start-up code.

use core::arch::asm;

macro_rules! numbers {
    ($($name:ident = $x86:literal, $arm:literal;)*) => {
        $(#[cfg(target_arch = "x86_64")] pub const $name: usize = $x86;
          #[cfg(target_arch = "aarch64")] pub const $name: usize = $arm;)*
    };
}

numbers! {
    READ = 0, 63; WRITE = 1, 64; CLOSE = 3, 57; IOCTL = 16, 29; PREAD64 = 17, 67; PWRITE64 = 18, 68; CLONE = 56, 220;
    EXECVE = 59, 221; WAIT4 = 61, 260; KILL = 62, 129; FCNTL = 72, 25; GETRUSAGE = 98, 165;
    SETSID = 112, 157; PRCTL = 157, 167; CLOCK_GETTIME = 228, 113; EXIT_GROUP = 231, 94;
    MMAP = 9, 222; MUNMAP = 11, 215; SENDMSG = 46, 211; RECVMSG = 47, 212; CHDIR = 80, 49;
    PPOLL = 271, 73; DUP3 = 292, 24; PIPE2 = 293, 59; SIGNALFD4 = 289, 74; RT_SIGPROCMASK = 14, 135; RT_SIGACTION = 13, 134;
}

/// Any system call; the kernel's return value, negative errno on failure.
///
/// # Safety
/// The arguments must be what the call `n` expects: pointers valid for what it reads and writes.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(n: usize, a: [usize; 6]) -> isize {
    let r;
    // SAFETY: the x86-64 system call convention; rcx and r11 are clobbered by the kernel.
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => r, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    r
}

/// Any system call; the kernel's return value, negative errno on failure.
///
/// # Safety
/// The arguments must be what the call `n` expects: pointers valid for what it reads and writes.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(n: usize, a: [usize; 6]) -> isize {
    let r;
    // SAFETY: the arm64 system call convention.
    unsafe {
        asm!("svc 0", in("x8") n, inlateout("x0") a[0] as isize => r, in("x1") a[1], in("x2") a[2],
             in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    r
}

/// `call` with fewer arguments.
///
/// # Safety
/// As `call`.
pub unsafe fn call3(n: usize, a: usize, b: usize, c: usize) -> isize {
    // SAFETY: passed on to the caller.
    unsafe { call(n, [a, b, c, 0, 0, 0]) }
}

/// clone(2) with CLONE_VM|CLONE_VFORK: `child` runs on `stack_top` and must not return; the caller
/// sleeps until the child has called execve or has exited. Returns the child's pid or -errno; its pidfd is stored in `pidfd`.
///
/// # Safety
/// `stack_top` is the 16-byte aligned end of memory that nothing else uses; `child` never returns.
pub unsafe fn vfork_on(stack_top: *mut u8, child: unsafe extern "C" fn(usize) -> !, arg: usize, pidfd: &mut i32) -> isize {
    // SAFETY: as the caller says. CLONE_VM | CLONE_PIDFD | CLONE_VFORK | SIGCHLD.
    unsafe { clone_on(0x100 | 0x1000 | 0x4000 | 17, stack_top, child, arg, pidfd) }
}

/// [`vfork_on`] without the sleep: both go on, in one memory.
///
/// # Safety
/// As there, as long as the child lives; it touches nothing that the caller does.
pub unsafe fn beside_on(stack_top: *mut u8, child: unsafe extern "C" fn(usize) -> !) -> isize {
    // SAFETY: as the caller says. CLONE_VM | SIGCHLD.
    unsafe { clone_on(0x100 | 17, stack_top, child, 0, &mut -1) }
}

unsafe fn clone_on(flags: usize, stack_top: *mut u8, child: unsafe extern "C" fn(usize) -> !, arg: usize, pidfd: &mut i32) -> isize {
    let r: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: in the child the kernel has set rsp to `stack_top`; r12 and r13 survive the call, and
    // control never comes back to this frame.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
             inlateout("rax") CLONE as isize => r, in("rdi") flags, in("rsi") stack_top, in("rdx") pidfd, in("r10") 0,
             in("r8") 0, in("r12") arg, in("r13") child, lateout("rcx") _, lateout("r11") _);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: in the child the kernel has set sp to `stack_top`; x9 and x10 survive the call, and
    // control never comes back to this frame.
    unsafe {
        asm!("svc 0", "cbnz x0, 2f", "mov x29, 0", "mov x0, x9", "blr x10", "brk 1", "2:",
             in("x8") CLONE, inlateout("x0") flags as isize => r, in("x1") stack_top, in("x2") pidfd, in("x3") 0,
             in("x4") 0, in("x9") arg, in("x10") child);
    }
    r
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes no pointers and does not return.
        unsafe { call3(EXIT_GROUP, code as usize, 0, 0) };
    }
}

/// Closes `fd`; nothing can be done about a failure.
pub fn close(fd: i32) {
    // SAFETY: takes no pointers.
    unsafe { call3(CLOSE, fd as usize, 0, 0) };
}

/// Makes `fd` vanish at execve; nothing starts if it would not.
pub fn set_cloexec(fd: i32) {
    // SAFETY: F_SETFD (2) takes a number.
    if unsafe { call3(FCNTL, fd as usize, 2, 1) } < 0 {
        exit(125);
    }
}

/// Writes all of `bytes` with one call; the kernel's answer.
pub fn write(fd: i32, bytes: &[u8]) -> isize {
    // SAFETY: the slice is valid for reading.
    unsafe { call3(WRITE, fd as usize, bytes.as_ptr() as usize, bytes.len()) }
}

/// Reads at most `buffer.len()` bytes; the kernel's answer.
pub fn read(fd: i32, buffer: &mut [u8]) -> isize {
    // SAFETY: the slice is valid for writing.
    unsafe { call3(READ, fd as usize, buffer.as_mut_ptr() as usize, buffer.len()) }
}

/// Microseconds of `clock` (0 real time, 1 monotonic).
pub fn now_us(clock: usize) -> i64 {
    let mut t = [0i64; 2];
    // SAFETY: `t` has the layout of struct timespec on 64-bit Linux.
    unsafe { call3(CLOCK_GETTIME, clock, t.as_mut_ptr() as usize, 0) };
    t[0] * 1_000_000 + t[1] / 1000
}

// The compiler may call these even in code that has no libc.

/// memcpy(3).
///
/// # Safety
/// `n` bytes are readable at `s` and writable at `d`, without overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(d: *mut u8, s: *const u8, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: i < n. Volatile so that the loop is not turned into a call of memcpy.
        unsafe { d.add(i).write_volatile(s.add(i).read()) };
    }
    d
}

/// memset(3).
///
/// # Safety
/// `n` bytes are writable at `d`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(d: *mut u8, c: i32, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: i < n. Volatile so that the loop is not turned into a call of memset.
        unsafe { d.add(i).write_volatile(c as u8) };
    }
    d
}

/// memcmp(3).
///
/// # Safety
/// `n` bytes are readable at `a` and `b`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: i < n.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// strlen(3).
///
/// # Safety
/// `s` is NUL-ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: stops at the NUL. Volatile so that the loop is not turned into a call of strlen.
    while unsafe { s.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

/// Named by core's unwind tables; never called, as panics abort.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}
