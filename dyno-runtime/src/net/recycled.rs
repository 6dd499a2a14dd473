//! Network namespaces of ended sandboxes, kept for the next one of the same tenant.
//!
//! ```text
//!   offer ──> waits ──tend: as it was made──> ready ──take: same tenant──> a sandbox's
//!               └──tend: not so after two seconds──> closed
//! ```
//!
//! A new namespace and its end cost 840 us of a row of many, the proof that a used one is as new a fifth of that. What no proof can
//! take back (counters) is why a tenant never gets another's.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::clean::is_as_made;

/// How long sockets may take to go: the kernel frees some of them after a grace period.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shelf of namespaces, each with its tenant's name on it.
#[derive(Debug)]
pub struct Recycled {
    most: usize,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    tenant: String,
    netns: OwnedFd,
    since: Instant,
    ready: bool,
}

impl Recycled {
    /// Keeps `most` at a time, of all tenants together; the oldest goes first.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// Whether it keeps any.
    pub fn keeps_any(&self) -> bool {
        self.most > 0
    }

    /// Takes in the namespace of a sandbox whose processes have all ended, and into which no other was let: that is for the caller to
    /// know. Everything else is proven before anybody gets it. Sockets that the caller has made in it keep it from being proven.
    pub fn offer(&self, tenant: &str, netns: OwnedFd) {
        let mut kept = self.kept();
        kept.push_back(Kept { tenant: tenant.to_owned(), netns, since: Instant::now(), ready: false });
        let over = kept.len().saturating_sub(self.most);
        let former: Vec<Kept> = kept.drain(..over).collect();
        drop(kept);
        // Closed without the lock: the last reference may be this one.
        drop(former);
    }

    /// Proves what waits, off the path of any start, and lets go of what did not become clean. True when some are still to be looked
    /// at, some milliseconds later.
    pub fn tend(&self) -> bool {
        let waiting: Vec<Kept> = {
            let mut kept = self.kept();
            let (ready, waiting) = kept.drain(..).partition(|one| one.ready);
            *kept = ready;
            Vec::from_iter::<VecDeque<Kept>>(waiting)
        };
        let mut again = false;
        for mut one in waiting {
            one.ready = is_as_made(one.netns.as_fd()).unwrap_or_else(|e| {
                tracing::debug!(%e, "a network namespace could not be proven clean");
                false
            });
            if one.ready || one.since.elapsed() < PATIENCE {
                again |= !one.ready;
                self.kept().push_back(one);
            }
        }
        again
    }

    /// One that was `tenant`'s and is as new.
    pub fn take(&self, tenant: &str) -> Option<OwnedFd> {
        let mut kept = self.kept();
        let at = kept.iter().position(|one| one.ready && one.tenant == tenant)?;
        kept.remove(at).map(|one| one.netns)
    }

    /// Lets go of all that were `tenant`'s.
    pub fn forget(&self, tenant: &str) {
        let former: Vec<Kept> = {
            let mut kept = self.kept();
            let (its, others) = kept.drain(..).partition(|one| one.tenant == tenant);
            *kept = others;
            Vec::from_iter::<VecDeque<Kept>>(its)
        };
        drop(former);
    }

    /// How many are kept, and how many of them can be taken.
    pub fn count(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.len(), kept.iter().filter(|one| one.ready).count())
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
