//! Id ranges: every sandbox gets 65536 host ids that no other sandbox shares, and a user namespace that maps them.

use std::{
    fs::OpenOptions,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    sys::{Flags, clone_paused},
};

/// Host ids of slot 0. Above what distributions hand out in /etc/subuid.
const BASE: u32 = 1 << 20;
/// Ids per sandbox.
const SIZE: u32 = 65536;
/// Slots; the last range ends below 2^31.
const SLOTS: u32 = 32_000;

/// The ranges in use, as files of a directory: exclusive creation is the lock, across processes and restarts.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    next: AtomicU32,
}

/// One range, and the user namespace that maps it to 0–65535.
#[derive(Debug)]
pub struct Lease {
    slot: u32,
    userns: OwnedFd,
}

impl Leases {
    /// Leases are files `dir/<slot>` that hold their owner's id.
    ///
    /// # Errors
    /// Of making the directory.
    pub fn open(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).io(|| format!("mkdir({})", dir.display()))?;
        Ok(Self { dir, next: AtomicU32::new(0) })
    }

    /// Takes a free range for `owner`. Ranges are taken in turn, so that a freed one rests before it is used again.
    ///
    /// # Errors
    /// When all are taken, or the kernel refuses a user namespace.
    pub fn take(&self, owner: &str) -> Result<Lease> {
        for _ in 0..SLOTS {
            let slot = self.next.fetch_add(1, Ordering::Relaxed) % SLOTS;
            match OpenOptions::new().write(true).create_new(true).open(self.path(slot)) {
                Ok(mut file) => {
                    let written = file.write_all(owner.as_bytes()).io(|| format!("write lease {slot}"));
                    return written.and_then(|()| Lease::map(slot)).inspect_err(|_| self.free(slot));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).io(|| format!("open({})", self.path(slot).display())),
            }
        }
        Err(Error::refused(ErrorKind::Wall, format!("all {SLOTS} id ranges are in use ({})", self.dir.display())))
    }

    /// Gives a range back.
    pub fn free(&self, slot: u32) {
        if let Err(e) = std::fs::remove_file(self.path(slot)) {
            tracing::warn!(slot, %e, "a lease could not be freed");
        }
    }

    /// Slots and owners of the leases that exist.
    ///
    /// # Errors
    /// Of reading the directory.
    pub fn list(&self) -> Result<Vec<(u32, String)>> {
        let entries = std::fs::read_dir(&self.dir).io(|| format!("list {}", self.dir.display()))?;
        let read = |path: &Path| Some((path.file_name()?.to_str()?.parse().ok()?, std::fs::read_to_string(path).ok()?));
        Ok(entries.filter_map(|e| read(&e.ok()?.path())).collect())
    }

    fn path(&self, slot: u32) -> PathBuf {
        self.dir.join(slot.to_string())
    }
}

impl Lease {
    /// A user namespace that maps the range of `slot`. A sleeping child holds it until the maps are written.
    pub(crate) fn map(slot: u32) -> Result<Self> {
        let holder = clone_paused(Flags::NEWUSER).wall(|| "clone3(CLONE_NEWUSER)".into())?;
        let proc = format!("/proc/{}", holder.pid);
        let map = format!("0 {} {SIZE}", BASE + slot * SIZE);
        for file in ["gid_map", "uid_map"] {
            std::fs::write(format!("{proc}/{file}"), &map).wall(|| format!("write {map:?} to {proc}/{file}"))?;
        }
        let userns = std::fs::File::open(format!("{proc}/ns/user")).wall(|| format!("open({proc}/ns/user)"))?;
        Ok(Self { slot, userns: userns.into() })
    }

    /// Its number.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The host id of id `id` inside.
    pub fn host_id(&self, id: u32) -> u32 {
        BASE + self.slot * SIZE + id
    }

    /// The user namespace.
    pub fn userns(&self) -> BorrowedFd<'_> {
        self.userns.as_fd()
    }
}
