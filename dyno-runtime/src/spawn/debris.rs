//! What a start has made so far, unmade when it fails.

use std::os::fd::{AsFd, OwnedFd};

use crate::{
    cgroup::Group,
    error::{Context, Error, ErrorKind, Result},
    host::Host,
    mount::Lease,
};

/// What a start has made so far; dropped armed, it unmakes all of it.
pub(super) struct Debris<'h> {
    host: &'h Host,
    pub id: String,
    slot: Option<u32>,
    pub group: Option<Group>,
    pub process: Option<OwnedFd>,
    armed: bool,
}

impl<'h> Debris<'h> {
    pub fn new(host: &'h Host, id: &str) -> Result<Self> {
        let dir = host.dyno_dir(id);
        std::fs::create_dir(&dir).context(ErrorKind::Invalid, || format!("dyno {id}: mkdir({}) (does it run already?)", dir.display()))?;
        Ok(Self { host, id: id.to_owned(), slot: None, group: None, process: None, armed: true })
    }

    pub fn dir(&self) -> std::path::PathBuf {
        self.host.dyno_dir(&self.id)
    }

    pub fn lease(&mut self, lease: Lease) -> Lease {
        self.slot = Some(lease.slot());
        lease
    }

    /// Whether its id range is its own.
    pub fn has_lease(&self) -> bool {
        self.slot.is_some()
    }

    /// Nothing of it is debris: it runs.
    pub fn disarm(mut self) -> Result<(Host, Option<Group>, OwnedFd)> {
        let Some(process) = self.process.take() else {
            return Err(Error::refused(ErrorKind::Io, format!("dyno {}: not started", self.id)));
        };
        self.armed = false;
        Ok((self.host.clone(), self.group.take(), process))
    }
}

impl Drop for Debris<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(pidfd) = &self.process {
            crate::dyno::kill_and_reap(pidfd.as_fd());
        }
        if let Some(group) = &self.group
            && let Err(e) = group.remove()
        {
            tracing::warn!(id = self.id, %e, "a failed start left its cgroup");
        }
        if let Err(e) = self.host.uplink().disconnect(&self.dir()) {
            // Nor may its range be another's, until a sweep has found it.
            return tracing::warn!(id = self.id, %e, "a failed start left its link");
        }
        if let Some(slot) = self.slot {
            self.host.leases().free(slot);
        }
        if let Err(e) = self.host.remove_dyno_dir(&self.id) {
            tracing::warn!(id = self.id, %e, "a failed start left its state directory");
        }
    }
}
