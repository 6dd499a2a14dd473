//! System calls: raw ones, those of other architectures, and what a sequence of them would reach.

use std::{fs::OpenOptions, io, os::fd::AsRawFd};

use crate::{Outcome, at, call, did, number, text};

pub(crate) fn attack(args: &[&str]) -> Option<Outcome> {
    Some(match args {
        ["call", number, args @ ..] => raw(number, args),
        ["clone", flags] => clone(crate::number(flags)),
        ["clone3", flags] => clone3(crate::number(flags)),
        ["fsopen", kind] => call(430, &[at(text(kind).to_bytes_with_nul()), 0]).and_then(|_| did("a context")),
        ["mknodat", path, mode, device] => call(259, &[-100i64 as u64, at(text(path).to_bytes_with_nul()), number(mode), number(device)]).and_then(|_| node(path)),
        ["socketpair", family] => call(53, &[number(family), 1, 0, [0i32; 2].as_mut_ptr() as u64]).and_then(|_| did("a pair")),
        ["perf"] => perf(),
        ["socket", family, kind, protocol] => call(41, &[number(family), number(kind), number(protocol)]).and_then(|_| did("a socket")),
        ["ioctl", path, request] => ioctl(path, number(request)),
        ["mknod", path, mode, device] => call(133, &[at(text(path).to_bytes_with_nul()), number(mode), number(device)]).and_then(|_| node(path)),
        ["mount", kind, target] => mount(kind, target, 0),
        ["unmount", path] => call(166, &[at(text(path).to_bytes_with_nul()), 2]).and_then(|_| did("unmounted")),
        ["remount-writable", target] => mount("none", target, 0x20_1026),
        ["chroot", path] => call(161, &[at(text(path).to_bytes_with_nul())]).and_then(|_| did("another root")),
        ["chown", path, uid] => call(92, &[at(text(path).to_bytes_with_nul()), number(uid), u64::MAX]).and_then(|_| did("another's")),
        ["kill", pid, signal] => call(62, &[number(pid), number(signal)]).and_then(|_| did("signalled")),
        ["join", path, kind] => join(path, number(kind)),
        ["i386", number] => i386(crate::number(number)),
        ["unfilter"] => unfilter(),
        ["key"] => key(),
        ["shared-memory", key] => shared_memory(number(key)),
        ["interface-down"] => interface_down(),
        ["userfault"] => call(323, &[1]).and_then(|_| did("a descriptor")), // UFFD_USER_MODE_ONLY
        ["ring"] => call(425, &[1, [0u64; 16].as_mut_ptr() as u64]).and_then(|_| did("a ring")),
        ["host-name"] => call(170, &[at(b"another\0"), 7]).and_then(|_| did("renamed")),
        ["core-limit"] => core_limit(),
        ["session"] => call(124, &[0]).map(|sid| (sid == 0).then(|| "in a session of somebody outside".to_owned())),
        ["calls", numbers @ ..] => calls(numbers),
        ["must-work"] => must_work(),
        _ => return None,
    })
}

fn raw(number: &str, args: &[&str]) -> Outcome {
    let args: Vec<u64> = args.iter().map(|arg| crate::number(arg)).collect();
    call(crate::number(number), &args).and_then(|answer| did(format!("answer {answer}")))
}

/// The child ends at once.
fn clone(flags: u64) -> Outcome {
    match call(56, &[flags | 17, 0, 0, 0, 0])? {
        0 => std::process::exit(0),
        pid => {
            call(61, &[pid as u64, 0, 0x4000_0000, 0])?;
            did("a child")
        }
    }
}

fn clone3(flags: u64) -> Outcome {
    let arguments = [flags, 0, 0, 0, 17, 0, 0, 0];
    match call(435, &[at(&arguments), 64])? {
        0 => std::process::exit(0),
        pid => {
            call(61, &[pid as u64, 0, 0x4000_0000, 0])?;
            did("a child")
        }
    }
}

/// A software counter of this process itself, user space only: what an ordinary user may ask for where the host lets it.
fn perf() -> Outcome {
    let mut attributes = [0u64; 14];
    attributes[0] = 1 | (112 << 32); // PERF_TYPE_SOFTWARE, size
    attributes[1] = 9; // PERF_COUNT_SW_DUMMY
    attributes[5] = 1 | (1 << 5) | (1 << 6); // disabled, exclude_kernel, exclude_hv
    call(298, &[at(&attributes), 0, u64::MAX, u64::MAX, 0]).and_then(|_| did("a counter"))
}

fn ioctl(path: &str, request: u64) -> Outcome {
    let mut argument = [0u8; 8];
    let file = OpenOptions::new().read(true).open(path)?;
    call(16, &[file.as_raw_fd() as u64, request, argument.as_mut_ptr() as u64]).and_then(|_| did("done"))
}

fn node(path: &str) -> Outcome {
    std::fs::remove_file(path)?;
    did("a node")
}

/// With the flags of a sandbox's root but that it is read-only: others may not be taken off by who did not put them on.
fn mount(kind: &str, target: &str, flags: u64) -> Outcome {
    let (kind, target) = (text(kind), text(target));
    call(165, &[at(kind.to_bytes_with_nul()), at(target.to_bytes_with_nul()), at(kind.to_bytes_with_nul()), flags, 0]).and_then(|_| did("mounted"))
}

fn join(path: &str, kind: u64) -> Outcome {
    let file = std::fs::File::open(path)?;
    call(308, &[file.as_raw_fd() as u64, kind]).and_then(|_| did("joined"))
}

/// By the gate of 32-bit programs, where numbers mean other calls.
#[cfg(target_arch = "x86_64")]
fn i386(number: u64) -> Outcome {
    let mut answer = number as i32;
    // SAFETY: the tables name calls that take no pointers. The gate leaves r8 to r11 undefined.
    unsafe { std::arch::asm!("int 0x80", inout("eax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _) };
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { did(format!("answer {answer}")) }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386(_: u64) -> Outcome {
    Err(io::Error::from_raw_os_error(38))
}

#[repr(C)]
struct Program {
    length: u16,
    filter: *const u64,
}

/// A filter of our own that allows everything, then what ours denies.
fn unfilter() -> Outcome {
    let allow: [u64; 1] = [0x7fff_0000_0000_0006]; // BPF_RET | BPF_K, SECCOMP_RET_ALLOW
    let program = Program { length: 1, filter: allow.as_ptr() };
    call(157, &[38, 1, 0, 0, 0])?; // PR_SET_NO_NEW_PRIVS
    call(317, &[1, 0, at(&program)])?;
    call(272, &[0]).and_then(|_| did("unshare"))
}

/// A key of the session that was not made in here.
fn key() -> Outcome {
    const SEARCH: u64 = 10;
    const SESSION: u64 = -3i64 as u64;
    let found = call(250, &[SEARCH, SESSION, at(b"user\0"), at(b"dyno-battery\0"), 0])?;
    did(format!("key {found}"))
}

fn shared_memory(key: u64) -> Outcome {
    let id = call(29, &[key, 0, 0])?;
    let address = call(30, &[id as u64, 0, 0o10_000])?; // SHM_RDONLY
    // SAFETY: the segment of the test holds at least these bytes, and nobody changes them.
    let words = unsafe { std::slice::from_raw_parts(address as *const u8, 6) };
    did(String::from_utf8_lossy(words))
}

/// The loopback of this network, by SIOCSIFFLAGS.
fn interface_down() -> Outcome {
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    call(16, &[socket.as_raw_fd() as u64, 0x8914, at(&request)]).and_then(|_| did("down"))
}

/// Any limit but one: core(5) lets a handler of the host's run at 0.
fn core_limit() -> Outcome {
    let mut limit = [0u64; 2];
    call(97, &[4, limit.as_mut_ptr() as u64])?;
    let [soft, hard] = std::hint::black_box(limit);
    Ok(((soft, hard) != (1, 1)).then(|| format!("{soft} {hard}")))
}

/// Every one of these calls, in a child of its own that is ended after a second; `NUMBER:ANSWER` each, where the answer is an errno, 0
/// for success, or a signal with a minus. The arguments name nothing that exists.
fn calls(numbers: &[&str]) -> Outcome {
    let mut said = Vec::new();
    for nr in numbers {
        let child = call(57, &[])?;
        if child == 0 {
            call(37, &[1])?; // alarm
            let answer = call(number(nr), &[u64::MAX; 6]);
            std::process::exit(answer.map_or_else(|e| e.raw_os_error().unwrap_or(0), |_| 0));
        }
        let mut status = [0i32; 1];
        call(61, &[child as u64, status.as_mut_ptr() as u64, 0, 0])?;
        let [status] = std::hint::black_box(status);
        said.push(format!("{nr}:{}", if status & 0x7f == 0 { (status >> 8) & 0xff } else { -(status & 0x7f) }));
    }
    did(said.join(" "))
}

/// What programs need and every profile lets through: the first that does not work is the errno.
fn must_work() -> Outcome {
    let ip = [2, 10].into_iter().flat_map(|family| [(family, 1, 0), (family, 1, 6), (family, 2, 0), (family, 2, 17), (family, 0x80801, 0)]);
    for (family, kind, protocol) in ip.chain([(1, 1, 0), (1, 2, 0), (16, 3, 0)]) {
        let socket = call(41, &[family, kind, protocol])?;
        call(3, &[socket as u64])?;
    }
    let mut pair = [0i32; 2];
    call(53, &[1, 1, 0, pair.as_mut_ptr() as u64])?;
    call(133, &[at(b"/tmp/pipe\0"), 0o10_600, 0])?;
    call(133, &[at(b"/tmp/plain\0"), 0o100_600, 0])?;
    call(133, &[at(b"/tmp/typeless\0"), 0o600, 0])?;
    call(133, &[at(b"/tmp/local\0"), 0o140_600, 0])?;
    for (n, mode) in [0o10_600, 0o100_600, 0o600, 0o140_600].into_iter().enumerate() {
        call(259, &[-100i64 as u64, at(text(&format!("/tmp/at{n}")).to_bytes_with_nul()), mode, 0])?;
    }
    call(135, &[0])?;
    call(135, &[0xffff_ffff])?;
    let mut window = [0u16; 4];
    match call(16, &[0, 0x5413, window.as_mut_ptr() as u64]) {
        Err(e) if e.raw_os_error() != Some(25) => return Err(e), // ENOTTY where there is no terminal
        _ => {}
    }
    clone(0)?;
    std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("a thread"))?;
    did("all")
}
