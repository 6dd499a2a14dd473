//! What the platform asks for while the app runs: commands beside it, behind the same walls because they are our children.
//!
//! A request is one message: MODE (as ours, one byte), seven bytes of nothing, the length of the first descriptor's contents;
//! with it come five descriptors: the command, a socket for the answers, and its three streams. The command is an image of
//! words of eight bytes: the number of words that follow, the offsets of working directory (0: ours) and program, those of the
//! arguments, 0, those of the environment, 0; and after them the strings, each with a NUL.
//!
//! Answers: errno and pid, four bytes each, the first with a pidfd if errno is 0; then, when it has ended, the four bytes of its
//! wait status. (The socket closes without it when this sandbox ends as a whole.)

use core::ptr::addr_of_mut;

use crate::{
    REQUESTS,
    start::Start,
    sys,
};

/// Commands at a time.
const MOST: usize = 64;
const DESCRIPTORS: usize = 5;
const SCM_RIGHTS: usize = 1;
const SOL_SOCKET: usize = 1;
const EAGAIN: i32 = 11;

/// Pid and answer socket of those that run. Untouched, and without a page, until one does.
static mut RUNNING: [(i32, i32); MOST] = [(0, 0); MOST];

/// `struct msghdr`.
#[repr(C)]
struct Message {
    name: usize,
    name_length: usize,
    parts: usize,
    parts_length: usize,
    control: usize,
    control_length: usize,
    flags: usize,
}

/// `struct cmsghdr` with room for the descriptors of a request.
#[repr(C)]
pub struct Rights {
    length: usize,
    /// cmsg_level and cmsg_type.
    kind: [u32; 2],
    pub descriptors: [i32; DESCRIPTORS + 1],
}

impl Rights {
    pub fn none() -> Self {
        Self { length: 0, kind: [0; 2], descriptors: [-1; DESCRIPTORS + 1] }
    }
}

/// Waits for one message; its length, at most as much as was made room for.
pub fn receive(line: i32, words: &mut [usize], rights: &mut Rights) -> isize {
    loop {
        match exchange(sys::RECVMSG, line, words, size_of::<Rights>(), rights, 0x4000_0000) {
            -4 => {} // EINTR
            other => return other,
        }
    }
}

/// Offsets of a command become addresses; working directory, program, arguments, environment.
///
/// # Safety
/// `words` is a command as told above, and stays where it is.
pub unsafe fn relocate(words: *mut usize) -> (*const u8, *const u8, *const *const u8, *const *const u8) {
    // SAFETY: as the caller says; the arguments and the environment end in 0.
    unsafe {
        let count = words.read();
        for word in core::slice::from_raw_parts_mut(words.add(1), count).iter_mut().filter(|word| **word != 0) {
            *word += words as usize;
        }
        let argv = words.add(3).cast::<*const u8>();
        let argc = (0..).take_while(|i| !argv.add(*i).read().is_null()).count();
        (words.add(1).read() as *const u8, words.add(2).read() as *const u8, argv, argv.add(argc + 1))
    }
}

pub struct Control;

impl Control {
    /// Reads one request and does it.
    pub fn serve(&mut self) {
        let mut words = [0usize; 2];
        let mut rights = Rights::none();
        if exchange(sys::RECVMSG, REQUESTS, &mut words, size_of::<Rights>(), &mut rights, 0x4000_0040) != 16 {
            return; // MSG_CMSG_CLOEXEC | MSG_DONTWAIT
        }
        let [command, answers, streams @ ..] = rights.descriptors;
        let [stdin, stdout, stderr, _] = streams;
        let terminal = words[0] as u8 == b't';
        let (pid, pidfd) = match free_place() {
            Some(_) => start(command, words[1], [stdin, stdout, stderr], terminal),
            None => (-(EAGAIN as isize), -1),
        };
        for fd in [command, stdin, stdout, stderr] {
            sys::close(fd);
        }
        self.answer(answers, pid, pidfd);
    }

    fn answer(&mut self, answers: i32, pid: isize, pidfd: i32) {
        let (errno, pid) = if pid < 0 { (-pid, 0) } else { (0, pid) };
        let mut words = [errno as usize | (pid as usize) << 32, 0];
        let mut rights = Rights { length: 20, kind: [SOL_SOCKET as u32, SCM_RIGHTS as u32], descriptors: [pidfd; DESCRIPTORS + 1] };
        exchange(sys::SENDMSG, answers, &mut words, if pid > 0 { 24 } else { 0 }, &mut rights, 0);
        sys::close(pidfd);
        match free_place() {
            Some(place) if pid > 0 => *place = (pid as i32, answers),
            _ => sys::close(answers),
        }
    }

    /// Tells how a command ended. Other children are orphans that nobody asks for.
    pub fn ended(&mut self, pid: i32, status: i32) {
        if let Some(place) = place_of(pid) {
            sys::write(place.1, &status.to_le_bytes());
            sys::close(place.1);
            *place = (0, 0);
        }
    }
}

fn free_place() -> Option<&'static mut (i32, i32)> {
    place_of(0)
}

fn place_of(pid: i32) -> Option<&'static mut (i32, i32)> {
    // SAFETY: this program has one thread, and no two such references are held at a time.
    unsafe { (*addr_of_mut!(RUNNING)).iter_mut().find(|(running, _)| *running == pid) }
}

fn start(command: i32, length: usize, streams: [i32; 3], terminal: bool) -> (isize, i32) {
    const READ_WRITE: usize = 3;
    const MAP_PRIVATE: usize = 2;
    // SAFETY: a new mapping; the platform's sealed memory file is as long as it says.
    let base = unsafe { sys::call(sys::MMAP, [0, length, READ_WRITE, MAP_PRIVATE, command as usize, 0]) };
    if base < 0 {
        return (base, -1);
    }
    // SAFETY: the platform lays the image out as told above; the child reads it while we sleep, and keeps nothing of it after exec.
    unsafe {
        let (cwd, program, argv, envp) = relocate(base as *mut usize);
        let made = Start { streams, cwd, leads: false, terminal, program, argv, envp, failed: 0 }.run();
        sys::call3(sys::MUNMAP, base as usize, length, 0);
        made
    }
}

/// sendmsg(2) of one word or recvmsg(2) of all of `words`, with `control` bytes of rights.
fn exchange(call: usize, socket: i32, words: &mut [usize], control: usize, rights: &mut Rights, flags: usize) -> isize {
    let part = [words.as_mut_ptr() as usize, if call == sys::SENDMSG { 8 } else { size_of_val(words) }];
    let control_at = if control == 0 { 0 } else { core::ptr::from_mut(rights) as usize };
    let message = Message { name: 0, name_length: 0, parts: part.as_ptr() as usize, parts_length: 1, control: control_at, control_length: control, flags: 0 };
    // SAFETY: `message` has the layout of struct msghdr, and all that it points to is valid for reading and writing.
    unsafe { sys::call3(call, socket as usize, &raw const message as usize, flags) }
}
