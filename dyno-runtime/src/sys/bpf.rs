//! Programs that decide about devices in a v2 control group: bpf(2) with BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;

const PROG_LOAD: libc::c_ulong = 5;
const PROG_ATTACH: libc::c_ulong = 8;
const PROG_DETACH: libc::c_ulong = 9;
const PROG_GET_FD_BY_ID: libc::c_ulong = 13;
const PROG_QUERY: libc::c_ulong = 16;

const CGROUP_DEVICE_PROGRAM: u32 = 15; // BPF_PROG_TYPE_CGROUP_DEVICE
const CGROUP_DEVICE: u32 = 6; // BPF_CGROUP_DEVICE
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2; // Linux 5.6

/// The kernel lets at most this many programs be attached to a group.
const MOST: usize = 64;

/// One eBPF instruction: `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high ones.
    pub registers: u8,
    /// Of a jump, or of memory.
    pub offset: i16,
    /// Operand.
    pub imm: i32,
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// For BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// For BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
}

/// For BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// # Safety
/// `T` begins as `union bpf_attr` does for `command`, and its pointers are good for what they are used for.
unsafe fn bpf<T>(command: libc::c_ulong, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel takes shorter attributes as if zeros followed; the rest is the caller's word.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// # Safety
/// As [`bpf`], of a command that makes a descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_ulong, attributes: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's word; the kernel has just made this descriptor for us, close-on-exec.
    unsafe { bpf(command, attributes).map(|fd| OwnedFd::from_raw_fd(fd as i32)) }
}

/// Loads a program that decides about devices. None of the kernel's helpers that ask for a licence is called.
///
/// # Errors
/// Of bpf(2): EPERM without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) in the first user namespace, EINVAL or EACCES for a program that the verifier refuses.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd, Errno> {
    let mut load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: `Load` has the kernel's layout, and both pointers outlive the call; the program is as long as said.
    unsafe { bpf_descriptor(PROG_LOAD, &mut load) }
}

/// The ids of the programs that decide about devices in `group` itself.
///
/// # Errors
/// Of bpf(2).
pub fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut ids = vec![0u32; MOST];
    let mut query =
        Query { target: group.as_raw_fd() as u32, kind: CGROUP_DEVICE, ids: ids.as_mut_ptr() as u64, count: MOST as u32, ..Default::default() };
    // SAFETY: `Query` has the kernel's layout, and `ids` has room for as many as said.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// The program with this id.
///
/// # Errors
/// Of bpf(2): ENOENT once it is gone.
pub fn program(id: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: `ById` has the kernel's layout.
    unsafe { bpf_descriptor(PROG_GET_FD_BY_ID, &mut ById { id, ..Default::default() }) }
}

/// Lets `program` decide about devices in `group` and below, beside those of groups above it: in place of `replaced`, or as one more.
///
/// # Errors
/// Of bpf(2): ENOENT if `replaced` is not attached there (any more), EPERM if a group above forbids it.
pub fn attach(group: BorrowedFd<'_>, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut attach = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: `Attach` has the kernel's layout; its members are numbers.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(drop)
}

/// Takes `program` off `group`.
///
/// # Errors
/// Of bpf(2): ENOENT if it is not attached there (any more).
pub fn detach(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attach = Attach { target: group.as_raw_fd() as u32, program: program.as_raw_fd() as u32, kind: CGROUP_DEVICE, ..Default::default() };
    // SAFETY: `Attach` has the kernel's layout; its members are numbers.
    unsafe { bpf(PROG_DETACH, &mut attach) }.map(drop)
}
