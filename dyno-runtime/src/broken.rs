//! Steps of a start that a test wants left out, to see that an attack then succeeds: that this step, and nothing else, held it off.
//!
//! Nothing of it is in a program that anybody runs: it takes the feature `break-walls`, which no release can be built with, and without
//! it [`is`] is a constant.

#[cfg(all(feature = "break-walls", not(debug_assertions)))]
compile_error!("the feature break-walls takes walls away, for tests alone: it is in no optimised build");

#[cfg(feature = "break-walls")]
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "break-walls"), expect(dead_code, reason = "named where each step is"))]
pub enum Part {
    /// The mount namespace's flags: a root without nosuid.
    NoSuid,
    /// … without nodev.
    NoDev,
    /// A read-only layer that is mounted writable.
    ReadOnlyRoot,
    /// Mount points are looked up without minding symlinks.
    NoSymlinks,
    /// No pid namespace.
    PidNamespace,
    /// No ipc namespace.
    IpcNamespace,
    /// No cgroup namespace.
    CgroupNamespace,
    /// The host's user namespace.
    UserNamespace,
    /// The starter's session keyring.
    Keyring,
    /// The starter's limit of core files.
    CoreLimit,
    /// The starter's ids.
    Ids,
    /// Every capability.
    Capabilities,
    /// Privileges may be gained by exec.
    NoNewPrivs,
    /// What the starter left inheritable stays open.
    Descriptors,
    /// No Landlock.
    Landlock,
    /// No filter, whatever the profile says.
    Filter,
    /// The kernel is not asked whether the walls are up.
    SelfCheck,
    /// An init that may be looked into. (It sees that itself, in the variable `DYNO_BREAK_WALLS`.)
    Undumpable,
}

#[cfg(feature = "break-walls")]
static PARTS: AtomicU32 = AtomicU32::new(0);
#[cfg(feature = "break-walls")]
static UNCOVERED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether a step is left out. Child-safe.
#[cfg(feature = "break-walls")]
pub(crate) fn is(part: Part) -> bool {
    PARTS.load(Ordering::Relaxed) & (1 << part as u32) != 0
}

/// Never.
#[cfg(not(feature = "break-walls"))]
pub(crate) const fn is(_: Part) -> bool {
    false
}

/// Whether a path of procfs is left as it is.
#[cfg(feature = "break-walls")]
pub(crate) fn uncovers(path: &str) -> bool {
    UNCOVERED.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|p| p == path)
}

/// Never.
#[cfg(not(feature = "break-walls"))]
pub(crate) const fn uncovers(_: &str) -> bool {
    false
}

/// Takes walls away from every start of this process until the answer is dropped.
#[cfg(feature = "break-walls")]
pub fn remove(parts: &[Part], uncovered: &[String]) -> Removed {
    PARTS.store(parts.iter().fold(0, |bits, part| bits | 1 << *part as u32), Ordering::Relaxed);
    *UNCOVERED.lock().unwrap_or_else(PoisonError::into_inner) = uncovered.to_vec();
    Removed(())
}

/// While it lives, walls are missing.
#[cfg(feature = "break-walls")]
#[derive(Debug)]
#[must_use = "the walls are back once it is dropped"]
pub struct Removed(());

#[cfg(feature = "break-walls")]
impl Drop for Removed {
    fn drop(&mut self) {
        PARTS.store(0, Ordering::Relaxed);
        UNCOVERED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
