//! Ids of layers that this kernel cannot idmap (squashfs before Linux 6.2): shifted in the writable layer instead.
//!
//! Everything of the upper layers is chowned to the sandbox's range; of the base, which is large and of which only
//! root's files matter little, the entries of its top. Overlayfs copies the inodes up without their data (`metacopy`). It
//! costs some 20 us and one inode of the writable layer per file; with idmapped mounts none of this happens.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, OFlags, Uid, chownat, statat},
    io::Errno,
};

use super::{Lease, root::LayerTree};
use crate::{
    error::{Context, Result},
    sys,
};

/// Shifts what `layers` brought unshifted, in `root`.
pub(super) fn shift(root: BorrowedFd<'_>, layers: &[LayerTree], lease: &Lease) -> Result<()> {
    for (i, layer) in layers.iter().enumerate().filter(|(_, l)| !l.shifted) {
        let base = i + 1 == layers.len() && i > 0;
        let from = open_dir(layer.tree.as_fd(), c".").wall(|| "open(layer)".into())?;
        walk(from.as_fd(), root, lease, if base { 1 } else { usize::MAX })?;
    }
    Ok(())
}

/// Walks a directory of a layer and chowns each of its entries in the merged tree. Both sides go by descriptor, so that no
/// symlink of an image is ever followed.
fn walk(layer: BorrowedFd<'_>, merged: BorrowedFd<'_>, lease: &Lease, depth: usize) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    for entry in Dir::read_from(layer).wall(|| "list a layer".into())? {
        let entry = entry.wall(|| "list a layer".into())?;
        let name: CString = entry.file_name().to_owned();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(layer, &name, AtFlags::SYMLINK_NOFOLLOW).wall(|| format!("stat {name:?} of a layer"))?;
        if stat.st_uid < 65536 && stat.st_gid < 65536 {
            let (uid, gid) = (Uid::from_raw(lease.host_id(stat.st_uid)), Gid::from_raw(lease.host_id(stat.st_gid)));
            match chownat(merged, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                // An upper layer has removed it.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e).wall(|| format!("chown {name:?} to the sandbox's ids")),
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = open_dir(layer, &name).wall(|| format!("open {name:?} of a layer"))?;
            let twin = match open_dir(merged, &name) {
                // An upper layer has removed it, or put something else in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.wall(|| format!("open {name:?} of the root"))?,
            };
            walk(below.as_fd(), twin.as_fd(), lease, depth - 1)?;
        }
    }
    Ok(())
}

fn open_dir(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::open_beneath(dir, name, flags)
}
