//! Starting a program: the app, or a command that the platform runs beside it.

use core::ptr::addr_of_mut;

use crate::sys;

#[repr(align(16))]
#[allow(dead_code, reason = "only its address is used")]
pub struct Stack([u8; 16384]);
static mut STACK: Stack = Stack::new();

impl Stack {
    pub const fn new() -> Self {
        Self([0; 16384])
    }

    /// Its end, where it begins.
    ///
    /// # Safety
    /// `stack` is a static.
    pub unsafe fn top(stack: *mut Self) -> *mut u8 {
        // SAFETY: one past what it points to.
        unsafe { stack.add(1).cast() }
    }
}

/// What the vforked child needs, and its answer.
pub struct Start {
    /// Become its streams; what is negative stays as it is.
    pub streams: [i32; 3],
    /// Working directory; null: ours.
    pub cwd: *const u8,
    /// Whether it leads a session already.
    pub leads: bool,
    /// Whether stdin becomes its controlling terminal.
    pub terminal: bool,
    pub program: *const u8,
    pub argv: *const *const u8,
    pub envp: *const *const u8,
    pub failed: i32,
}

impl Start {
    /// The child's pid and pidfd once its exec is done, or a negative errno.
    pub fn run(&mut self) -> (isize, i32) {
        let mut pidfd = -1;
        // SAFETY: STACK is used by this one child at a time; `child` does not return, and `self` outlives it
        // because we sleep until it has called execve or has exited.
        let pid = unsafe { sys::vfork_on(Stack::top(addr_of_mut!(STACK)), child, core::ptr::from_mut(self) as usize, &mut pidfd) };
        if pid >= 0 && self.failed != 0 {
            sys::close(pidfd);
            return (-(self.failed as isize), -1);
        }
        (pid, pidfd)
    }

    /// In the process that is to become it. Returns only on failure, with the errno.
    pub fn become_program(&self) -> isize {
        let none: u64 = 0;
        // SAFETY: numbers, NUL-ended strings, vectors that end in NULL, and a 64-bit kernel sigset that outlives the call.
        unsafe {
            let mut worst = if self.leads { 0 } else { sys::call3(sys::SETSID, 0, 0, 0).min(0) };
            if !self.cwd.is_null() {
                worst = worst.min(sys::call3(sys::CHDIR, self.cwd as usize, 0, 0));
            }
            for (to, from) in self.streams.iter().enumerate().filter(|(_, from)| **from >= 0) {
                worst = worst.min(sys::call3(sys::DUP3, *from as usize, to, 0));
            }
            if self.terminal {
                worst = worst.min(sys::call3(sys::IOCTL, 0, 0x540e, 0)); // TIOCSCTTY
            }
            sys::call(sys::RT_SIGPROCMASK, [2, &raw const none as usize, 0, 8, 0, 0]);
            -(if worst < 0 { worst } else { exec(self) })
        }
    }
}

/// Whether the battery of attacks wants an init that can be looked into; compiled for it alone.
///
/// # Safety
/// `envp` is a NULL-ended vector of NUL-ended strings.
#[cfg(break_walls)]
pub unsafe fn dumpable(envp: *const *const u8) -> bool {
    // SAFETY: as said above.
    unsafe { (0..).map(|i| envp.add(i).read()).take_while(|e| !e.is_null()).any(|e| bytes(e) == b"DYNO_BREAK_WALLS=dumpable") }
}

unsafe extern "C" fn child(arg: usize) -> ! {
    // SAFETY: `arg` is the `Start` of the parent, which sleeps until we are gone.
    let start = unsafe { &mut *(arg as *mut Start) };
    start.failed = start.become_program() as i32;
    sys::exit(127)
}

/// execve, looking the program up in PATH when its name has no slash. Returns only on failure, with -errno.
///
/// # Safety
/// The pointers of `start` are the kernel's own argument vectors.
unsafe fn exec(start: &Start) -> isize {
    // SAFETY: as the caller says.
    unsafe { exec_with(start.program, start.argv as usize, start.envp) }
}

/// Lets the kernel find and open a program as execve does, so that it has done so before. It goes no further: arguments at an address where
/// nothing is end it (EFAULT). Needs no call but execve, which a filter must allow anyway.
///
/// # Safety
/// `program` is a NUL-ended string, `envp` a NULL-ended vector of such.
pub unsafe fn look_up(program: *const u8, envp: *const *const u8) {
    // SAFETY: as the caller says.
    unsafe { exec_with(program, 1, envp) };
}

/// # Safety
/// NUL-ended strings, vectors that end in NULL, or an address where nothing is for `argv`.
unsafe fn exec_with(program: *const u8, argv: usize, envp: *const *const u8) -> isize {
    // SAFETY: as the caller says; `path` is NUL-ended by `join`.
    unsafe {
        let name = bytes(program);
        let try_exec = |path: *const u8| sys::call3(sys::EXECVE, path as usize, argv, envp as usize);
        if name.contains(&b'/') {
            return try_exec(program);
        }
        let mut answer = -2; // ENOENT
        let mut path = [0u8; 1024];
        for dir in search_path(envp).split(|b| *b == b':') {
            if join(&mut path, dir, name) {
                match try_exec(path.as_ptr()) {
                    -2 | -20 => {} // ENOENT, ENOTDIR: look on
                    other => answer = other,
                }
                if answer != -2 && answer != -13 {
                    break;
                }
            }
        }
        answer
    }
}

fn join(path: &mut [u8], dir: &[u8], name: &[u8]) -> bool {
    let length = dir.len() + 1 + name.len();
    if dir.is_empty() || length >= path.len() {
        return false;
    }
    path[..dir.len()].copy_from_slice(dir);
    path[dir.len()] = b'/';
    path[dir.len() + 1..length].copy_from_slice(name);
    path[length] = 0;
    true
}

/// # Safety
/// `envp` is a NULL-ended vector of NUL-ended strings.
unsafe fn search_path<'a>(mut envp: *const *const u8) -> &'a [u8] {
    // SAFETY: stops at the NULL.
    unsafe {
        while !envp.read().is_null() {
            if let Some(path) = bytes(envp.read()).strip_prefix(b"PATH=") {
                return path;
            }
            envp = envp.add(1);
        }
    }
    b"/usr/local/bin:/usr/bin:/bin"
}

/// # Safety
/// `s` is NUL-ended.
pub unsafe fn bytes<'a>(s: *const u8) -> &'a [u8] {
    // SAFETY: NUL-ended, says the caller.
    unsafe { core::slice::from_raw_parts(s, sys::strlen(s)) }
}
