//! Capability sets of the calling thread: cut down to what was asked for, and read back.

use rustix::io::Errno;

use super::check;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: the low halves of the sets, then (as a second one) the high halves.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Most that a set can hold.
const MOST: libc::c_ulong = 64;

/// Leaves exactly `wanted` in all five sets, so that they survive exec under any uid; everything else can never be regained.
/// Without any, the securebits are locked as well, so that uid 0 means nothing. Child-safe.
///
/// # Errors
/// Of prctl(2) and capset(2): EPERM for one that the caller has not.
pub fn keep_capabilities(wanted: u64) -> Result<(), Errno> {
    // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock; KEEP_CAPS_LOCKED.
    const LOCKED: libc::c_ulong = 0b1110_1111;
    for capability in (0..MOST).filter(|c| wanted & (1 << c) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            Err(Errno::INVAL) => break, // past the last capability of this kernel
            Err(e) => return Err(e),
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    if wanted == 0 {
        prctl(libc::PR_SET_SECUREBITS, LOCKED, 0)?;
    }
    // These calls need nothing but that the capability is permitted and inheritable (capabilities(7)).
    set(wanted)?;
    for capability in (0..MOST).filter(|c| wanted & (1 << c) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability)?;
    }
    Ok(())
}

/// Reads back that all five sets are exactly `wanted`. Child-safe.
pub fn capabilities_are(wanted: u64) -> bool {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut is = [Sets { effective: u32::MAX, permitted: u32::MAX, inheritable: u32::MAX }; 2];
    // SAFETY: version 3 writes two `struct __user_cap_data_struct` of three words.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw const header, is.as_mut_ptr()) };
    r == 0 && is == halves(wanted) && (0..MOST).map_while(bounded).enumerate().all(|(c, bounded)| bounded == (wanted & (1 << c) != 0)) && ambient_is(wanted)
}

/// Whether the bounding set has it; None from the first on that the kernel does not know.
fn bounded(capability: libc::c_ulong) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, capability, 0).ok().map(|held| held == 1)
}

/// The ambient set has nothing that is not inheritable (capabilities(7)), so that only what may be in there is asked for.
fn ambient_is(inheritable: u64) -> bool {
    let held = |c| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, c) == Ok(1);
    (0..MOST).filter(|c| inheritable & (1 << c) != 0).all(held)
}

fn set(bits: u64) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = halves(bits);
    // SAFETY: version 3 takes two `struct __user_cap_data_struct` of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
}

fn halves(bits: u64) -> [Sets; 2] {
    let half = |bits: u32| Sets { effective: bits, permitted: bits, inheritable: bits };
    [half(bits as u32), half((bits >> 32) as u32)]
}

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_long, Errno> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0, 0) })
}
