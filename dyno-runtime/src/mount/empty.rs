//! A mount namespace with nothing in it, which a child enters before it takes one of its own.
//!
//! A new mount namespace is a copy of the one that its maker is in, mount by mount, and what is not wanted must be taken off again, which
//! waits for a grace period. Of an empty one there is nothing to copy and nothing to take off: the start does not notice how many mounts
//! the host has, and nothing of the host is ever below the sandbox's root.

use std::{ffi::CStr, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsmount, fsopen,
        mount_change, move_mount, unmount,
    },
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    plan::c_string,
    sys::{self, Flags, Visitor},
};

/// Made by a child, whose own it is until it has gone.
struct Emptied<'a> {
    /// A directory of the host.
    point: &'a CStr,
    namespace: Option<OwnedFd>,
}

impl Visitor for Emptied<'_> {
    fn run(&mut self) -> std::result::Result<(), Errno> {
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let namespace = rustix::fs::open(c"/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // The memory and the descriptors are the parent's as well.
        self.namespace = Some(namespace);
        enter_nothing(self.point)
    }
}

fn enter_nothing(point: &CStr) -> std::result::Result<(), Errno> {
    let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let nothing = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&nothing, c"", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&nothing)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)
}

/// A new empty mount namespace; `point` is a directory, which is as before after.
///
/// # Errors
/// Of clone3(2) and of mounting.
pub fn empty_namespace(point: &Path) -> Result<OwnedFd> {
    let point = c_string(&point.to_string_lossy());
    let mut emptied = Emptied { point: &point, namespace: None };
    sys::errand(Flags::NEWNS, &mut emptied).wall(|| "an empty mount namespace: clone3(CLONE_NEWNS), move_mount, pivot_root or umount2".into())?;
    emptied.namespace.ok_or_else(|| Error::refused(ErrorKind::Wall, "an empty mount namespace: none was made"))
}
