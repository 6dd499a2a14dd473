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
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets that capget(2) and capset(2) know, as bits by number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

impl Sets {
    /// Those of this thread. Child-safe.
    pub fn now() -> Result<Self, Errno> {
        let header = Header { version: VERSION_3, pid: 0 };
        let mut is = [Half::default(); 2];
        // SAFETY: version 3 writes two `struct __user_cap_data_struct` of three words.
        check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, is.as_mut_ptr()) })?;
        let [low, high] = is;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (effective, permitted) = (join(low.effective, high.effective), join(low.permitted, high.permitted));
        Ok(Self { effective, permitted, inheritable: join(low.inheritable, high.inheritable) })
    }

    /// Makes them this thread's. Child-safe.
    pub fn set(self) -> Result<(), Errno> {
        let header = Header { version: VERSION_3, pid: 0 };
        let half = |shift: u32| Half {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let halves = [half(0), half(32)];
        // SAFETY: version 3 takes two `struct __user_cap_data_struct` of three words.
        check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) }).map(drop)
    }
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
    Sets { effective: wanted, permitted: wanted, inheritable: wanted }.set()?;
    for capability in (0..MOST).filter(|c| wanted & (1 << c) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability)?;
    }
    Ok(())
}

/// Reads back that all five sets are exactly `wanted`. Child-safe.
pub fn capabilities_are(wanted: u64) -> bool {
    let is = Sets::now();
    is == Ok(Sets { effective: wanted, permitted: wanted, inheritable: wanted }) && bounding_is(wanted) && ambient_is(wanted)
}

/// Read one by one, up to the first that the kernel does not know.
fn bounding_is(wanted: u64) -> bool {
    for capability in 0..MOST {
        match prctl(libc::PR_CAPBSET_READ, capability, 0) {
            Ok(held) if (held == 1) == (wanted & (1 << capability) != 0) => {}
            Err(Errno::INVAL) => return wanted >> capability == 0,
            _ => return false,
        }
    }
    true
}

/// The ambient set has nothing that is not inheritable (capabilities(7)), so that only what may be in there is asked for.
fn ambient_is(inheritable: u64) -> bool {
    let held = |c| prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, c) == Ok(1);
    (0..MOST).filter(|c| inheritable & (1 << c) != 0).all(held)
}

/// prctl(2) with numbers.
pub(super) fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_long, Errno> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0, 0) })
}
