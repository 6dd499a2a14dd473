//! Id ranges: every sandbox gets 65536 host ids that no other sandbox shares, and a user namespace that maps them.

use std::{
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

/// Where the leases of all instances of this host are: ranges must be disjoint across them.
const DIR: &str = "/run/dyno-leases";

/// Begins the owner of a lease that is no dyno's yet; pid and start time of its holder follow. No id has a space.
const SPARE: &str = "spare ";

/// Whether the process with this pid and start time still runs.
fn lives(holder: &str) -> bool {
    let process = holder.split_once(' ').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse::<u64>().ok()?)));
    process.is_some_and(|(pid, start)| crate::proc_stat::lives(pid, start))
}

/// The ranges in use, as files of one directory of the host: exclusive creation is the lock, across instances, processes and
/// restarts. Each file names its owner, an instance and a dyno, from the moment that it exists.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    instance: String,
    slots: u32,
    next: AtomicU32,
}

/// What stands ready to write down whose a spare range is.
#[derive(Debug)]
pub struct Claim {
    file: std::fs::File,
    path: PathBuf,
    instance: String,
}

impl Claim {
    /// See [`Leases::assign`].
    ///
    /// # Errors
    /// Of write(2).
    pub fn assign(&self, owner: &str) -> Result<()> {
        let text = format!("{}\n{owner}", self.instance);
        // To the end of what stood there, which was longer or not.
        let text = format!("{text:\n<width$}", width = self.instance.len() + SPARE.len() + 40);
        rustix::io::pwrite(&self.file, text.as_bytes(), 0).io(|| format!("write {}", self.path.display())).map(drop)
    }
}

/// One range, and the user namespace that maps it to 0–65535.
#[derive(Debug)]
pub struct Lease {
    slot: u32,
    userns: OwnedFd,
    ids: HostIds,
    /// Nobody's yet, where it was made ahead as well.
    dev: Option<OwnedFd>,
}

/// Which host ids stand for those inside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HostIds {
    /// From here up.
    From(u32),
    /// An unprivileged user's own for 0, and these from 1 up.
    Range {
        /// Of id 0.
        zero: u32,
        /// Of id 1.
        one: u32,
    },
    /// An unprivileged user's own for the only one inside.
    One(u32),
}

impl Leases {
    /// The leases of the instance named `instance`.
    pub fn of(instance: &Path) -> Self {
        Self::within(DIR.into(), instance, SLOTS)
    }

    /// Those of an instance that shares `slots` ranges with all others whose leases are in `dir`.
    pub(crate) fn within(dir: PathBuf, instance: &Path, slots: u32) -> Self {
        // Instances begin at different places, so that a range that one frees is not the next that another takes.
        let first = std::process::id().wrapping_mul(7919) % slots.max(1);
        Self { dir, instance: instance.display().to_string(), slots, next: AtomicU32::new(first) }
    }

    /// Takes a free range for `owner`. Ranges are taken in turn, so that a freed one rests before it is used again.
    ///
    /// # Errors
    /// When all are taken, or the kernel refuses a user namespace.
    pub fn take(&self, owner: &str) -> Result<Lease> {
        let slot = self.reserve(owner)?;
        Lease::map(slot).inspect_err(|_| self.free(slot))
    }

    /// A range that stands ready for whoever comes next, until when it is this process's ([`Self::assign`]); with a /dev.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn spare(&self) -> Result<Lease> {
        let pid = std::process::id();
        let lease = self.take(&format!("{SPARE}{pid} {}", crate::proc_stat::start_time(pid)?))?;
        let dev = super::new_dev(&[]).inspect_err(|_| self.free(lease.slot))?;
        Ok(Lease { dev: Some(dev), ..lease })
    }

    /// Makes a spare one `owner`'s: one write, of which nothing is seen in part.
    ///
    /// # Errors
    /// Of open(2) and write(2).
    pub fn assign(&self, slot: u32, owner: &str) -> Result<()> {
        self.claim_on(slot)?.assign(owner)
    }

    /// [`Self::assign`] of a spare one, for who does not know yet to whom.
    ///
    /// # Errors
    /// Of open(2).
    pub fn claim_on(&self, slot: u32) -> Result<Claim> {
        let path = self.path(slot);
        let file = std::fs::OpenOptions::new().write(true).open(&path).io(|| format!("open({})", path.display()))?;
        Ok(Claim { file, path, instance: self.instance.clone() })
    }

    /// The number of a free range, which is `owner`'s now.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn reserve(&self, owner: &str) -> Result<u32> {
        std::fs::create_dir_all(&self.dir).io(|| format!("mkdir({})", self.dir.display()))?;
        let ticket = self.dir.join(format!(".{}-{owner}", std::process::id()));
        let written = std::fs::write(&ticket, format!("{}\n{owner}", self.instance)).io(|| format!("write {}", ticket.display()));
        let slot = written.and_then(|()| self.claim(&ticket));
        match std::fs::remove_file(&ticket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!(ticket = %ticket.display(), %e, "could not be removed"),
            _ => {}
        }
        slot
    }

    /// Gives the ticket the name of a free slot: link(2) never replaces, and the file is whole when it appears.
    fn claim(&self, ticket: &Path) -> Result<u32> {
        for _ in 0..self.slots {
            let slot = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.max(1);
            match std::fs::hard_link(ticket, self.path(slot)) {
                Ok(()) => return Ok(slot),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).io(|| format!("link({})", self.path(slot).display())),
            }
        }
        Err(Error::refused(ErrorKind::Wall, format!("all {} id ranges are in use ({})", self.slots, self.dir.display())))
    }

    /// Removes the directory if no instance has a lease any more.
    pub fn leave(&self) {
        match std::fs::remove_dir(&self.dir) {
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty) => {
                tracing::warn!(dir = %self.dir.display(), %e, "could not be removed");
            }
            _ => {}
        }
    }

    /// Gives a range back.
    pub fn free(&self, slot: u32) {
        if let Err(e) = std::fs::remove_file(self.path(slot)) {
            tracing::warn!(slot, %e, "a lease could not be freed");
        }
    }

    /// Removes what a process of this instance left when it was killed: tickets of [`Self::take`], and ranges that were nobody's yet.
    pub fn sweep_leftovers(&self) {
        for (slot, owner) in self.entries().unwrap_or_default() {
            if let Some(holder) = owner.strip_prefix(SPARE)
                && !lives(holder)
            {
                self.free(slot);
            }
        }
        self.sweep_tickets();
    }

    fn sweep_tickets(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for path in entries.filter_map(|e| Some(e.ok()?.path())) {
            let ticket = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let ours = || std::fs::read_to_string(&path).is_ok_and(|text| text.split('\n').next() == Some(&self.instance));
            if ticket
                && ours()
                && let Err(e) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %e, "could not be removed");
            }
        }
    }

    /// Slots and owners of this instance's leases; spare ones have none yet.
    ///
    /// # Errors
    /// Of reading the directory.
    pub fn list(&self) -> Result<Vec<(u32, String)>> {
        Ok(self.entries()?.into_iter().filter(|(_, owner)| !owner.starts_with(SPARE)).collect())
    }

    fn entries(&self) -> Result<Vec<(u32, String)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.io(|| format!("list {}", self.dir.display()))?,
        };
        let read = |path: &Path| {
            let slot = path.file_name()?.to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(path).ok()?;
            let (instance, owner) = text.split_once('\n')?;
            (instance == self.instance).then(|| (slot, owner.trim_end_matches('\n').to_owned()))
        };
        Ok(entries.filter_map(|e| read(&e.ok()?.path())).collect())
    }

    fn path(&self, slot: u32) -> PathBuf {
        self.dir.join(slot.to_string())
    }
}

/// The host id of id `id` inside a sandbox with the range of `slot`.
pub(crate) fn host_id(slot: u32, id: u32) -> u32 {
    BASE + slot * SIZE + id
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
        Ok(Self::held(slot, userns.into(), HostIds::From(BASE + slot * SIZE)))
    }

    pub(crate) fn held(slot: u32, userns: OwnedFd, ids: HostIds) -> Self {
        Self { slot, userns, ids, dev: None }
    }

    /// Whether an unprivileged user made it.
    pub(crate) fn is_rootless(&self) -> bool {
        !matches!(self.ids, HostIds::From(_))
    }

    /// Whether it maps more than one id.
    pub(crate) fn is_range(&self) -> bool {
        !matches!(self.ids, HostIds::One(_))
    }

    /// The /dev that was made ahead, once.
    pub fn take_dev(&mut self) -> Option<OwnedFd> {
        self.dev.take()
    }

    /// Its number.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The host id of id `id` inside.
    pub fn host_id(&self, id: u32) -> u32 {
        match self.ids {
            HostIds::From(first) => first + id,
            HostIds::Range { zero, .. } if id == 0 => zero,
            HostIds::Range { one, .. } => one + id - 1,
            HostIds::One(only) => only,
        }
    }

    /// The user namespace.
    pub fn userns(&self) -> BorrowedFd<'_> {
        self.userns.as_fd()
    }
}
