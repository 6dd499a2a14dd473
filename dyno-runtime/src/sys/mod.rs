//! The one room with the key to `unsafe`: raw system calls that rustix lacks.
//!
//! Typed file descriptors go in, `rustix::io::Errno` comes out. Nothing here knows what a container is.
//! Everything marked *child-safe* allocates nothing, takes no lock and touches no thread-local state,
//! so that it can run in a vforked child that shares its parent's memory.

#![allow(unsafe_code)]

#[cfg(test)]
pub mod attempt;
#[cfg(feature = "oci")]
mod beside;
#[cfg(feature = "oci")]
pub mod bpf;
mod capability;
mod clone;
mod clone2;
mod close;
#[cfg(feature = "oci")]
mod credentials;
#[cfg(feature = "oci")]
mod fork;
#[cfg(test)]
pub mod inject;
mod landlock;
mod loopdev;
mod memory;
mod mount;
mod needed;
pub mod notify;
mod path;
mod pidfd;
mod placement;
mod probe;
mod process;
#[cfg(feature = "oci")]
mod regex;
mod rights;
mod seats;
#[cfg(feature = "cli")]
mod signals;
#[cfg(feature = "oci")]
mod spawn;
mod within;

#[cfg(feature = "oci")]
pub use beside::{Beside, Closing, close_beside};
pub use capability::{capabilities_are, keep_capabilities};
pub use clone::{Flags, SharedChild, clone_paused, vfork};
#[cfg(feature = "oci")]
pub use close::{close_all_but, is_open_over_exec};
#[cfg(feature = "oci")]
pub use credentials::*;
#[cfg(feature = "oci")]
pub use fork::{Forked, fork, namespace_type};
pub use landlock::{Handled, MAKE_DEVICES, REFER, Ruleset, SCOPE_ABSTRACT_SOCKETS, TRUNCATE, WRITE, WRITE_FILE, access, landlock_abi};
pub use loopdev::{LoopAccess, attach_loop};
#[cfg(feature = "oci")]
pub use memory::SEALS;
pub use memory::{data_in_memory, program_in_memory};
pub use mount::{IDMAP, MountAttr, NODEV, NOEXEC, NOSUID, PRIVATE, RDONLY, mount_setattr};
pub use needed::first_missing;
#[cfg(test)]
pub use needed::is_question;
pub use path::{open_beneath, open_without_symlinks};
#[cfg(feature = "oci")]
pub use pidfd::number;
pub use pidfd::{mount_namespace, network_namespace, pin, reap};
pub use placement::{Processors, keep_off_ours, usable as usable_processors};
pub use probe::{Answer, calls as probe_calls};
#[cfg(feature = "oci")]
pub use process::set_groups;
pub use process::{
    Filter, exec_fd, exit_now, has_seccomp_filter, install_filter, interface_up, is_open_for_writing, join_new_session_keyring, limit_core,
    limit_file_size, limit_open_files, limit_stack, place_descriptors, processors, reset_scheduling, set_ids, unshare, with_signals_blocked,
};
pub use rights::{receive_descriptor, send_descriptor};
pub use seats::{Row, Seated, Seats};
pub use within::{Visitor, dumpable, errand, keep_over_ids, owner_of, set_dumpable, vfork_within, visit};

#[cfg(feature = "oci")]
pub use regex::Regex;
#[cfg(feature = "oci")]
pub use signals::{keep_ended_children, send_signal};
#[cfg(feature = "cli")]
pub use signals::{next_signal, watch_signals};
#[cfg(feature = "oci")]
pub use spawn::{Program, spawn};

use rustix::io::Errno;

/// The result of `syscall(2)`: -1 means errno.
fn check(r: libc::c_long) -> Result<libc::c_long, Errno> {
    if r == -1 {
        // SAFETY: errno of this thread was set by the call that has just failed.
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(r)
}
