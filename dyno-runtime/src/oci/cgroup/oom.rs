//! When a container's memory runs out: v1's eventfd on `memory.oom_control`, v2's `memory.events` by inotify.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify;

use super::{Cgroup, refused};
use crate::{
    cgroup::{
        Version,
        events::{drain, notify, watch_file},
        file::{open_file, read_from_start, value_of},
    },
    error::{Context, Result},
};

/// What [`Oom::look`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing new.
    Nothing,
    /// Memory ran out. Told once for what happened since the last look.
    OutOfMemory,
    /// The container's group is gone, or nobody is left in it.
    Gone,
}

/// Tells when the memory of a container runs out. Its descriptor is readable when it is worth a look; then call [`Oom::look`].
#[derive(Debug)]
pub struct Oom {
    /// An eventfd or an inotify.
    signal: OwnedFd,
    /// `memory.oom_control` or `memory.events`.
    memory: OwnedFd,
    /// v2: `cgroup.events`.
    members: Option<OwnedFd>,
    kills: u64,
}

impl Cgroup {
    /// Watches the container's memory from now on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Wall`] where nothing limits it.
    pub fn events(&self) -> Result<Oom> {
        let group = self.part("memory").or_else(|| self.tree().filter(|tree| tree.read("memory.events").is_ok()));
        let group = group.ok_or_else(|| refused("the container is in no control group that limits memory"))?;
        let open = |name: &str| open_file(&group.dir, name).io(|| format!("cgroup: open({}/{name})", group.path));
        if group.version == Version::V1 {
            let (signal, memory) = notify(&group.dir, &group.path, "memory.oom_control", "")?;
            return Ok(Oom { signal, memory, members: None, kills: 0 });
        }
        let signal = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).io(|| "inotify_init1".into())?;
        for name in ["memory.events", "cgroup.events"] {
            watch_file(&signal, &group.dir, &group.path, name)?;
        }
        let (memory, members) = (open("memory.events")?, Some(open("cgroup.events")?));
        let kills = killed(&memory).unwrap_or(0);
        Ok(Oom { signal, memory, members, kills })
    }
}

/// None when the group is gone.
fn killed(memory: &OwnedFd) -> Option<u64> {
    Some(value_of(&read_from_start(memory).ok()?, "oom_kill").unwrap_or(0))
}

impl Oom {
    /// What has happened since the last look. Never blocks.
    pub fn look(&mut self) -> Seen {
        let signalled = drain(&self.signal);
        // A v1 group that is removed signals too; then there is nothing to read.
        let Some(kills) = killed(&self.memory) else { return Seen::Gone };
        let grown = kills > self.kills;
        self.kills = kills;
        if grown || (signalled && self.members.is_none()) {
            return Seen::OutOfMemory;
        }
        match self.members.as_ref().map(read_from_start) {
            Some(Err(_)) => Seen::Gone,
            Some(Ok(text)) if value_of(&text, "populated") == Some(0) => Seen::Gone,
            _ => Seen::Nothing,
        }
    }
}

impl AsFd for Oom {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}
