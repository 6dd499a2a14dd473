//! One dyno as the router sees it: exchanges under way, idle connections, and whether it is being avoided.
//!
//! An [`Upstream`] lives as long as its dyno is in the table and some exchange holds it. When the dyno leaves the table
//! its idle connections are closed at once; exchanges under way end as they would have.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, timeout};

use super::{body::Upload, table::Backend};

/// How long a connection that has just finished one exchange may take to be ready for the next.
const SETTLE: Duration = Duration::from_millis(50);

/// An open HTTP connection to a dyno.
pub(super) type Sender = SendRequest<Upload>;

/// One dyno.
pub(super) struct Upstream {
    pub(super) backend: Backend,
    /// Exchanges under way, or [`CLOSED`].
    active: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    /// False once the dyno has left the table.
    listed: bool,
    /// Since when, the newest at the back.
    idle: VecDeque<(Instant, Sender)>,
    /// Avoided until then.
    shunned: Option<Instant>,
    /// End of its last exchange, or when it was listed.
    visited: Instant,
}

/// More than any limit: nothing is admitted.
const CLOSED: usize = usize::MAX;

impl Upstream {
    pub(super) fn new(backend: Backend) -> Arc<Self> {
        let state = Mutex::new(State { listed: true, idle: VecDeque::new(), shunned: None, visited: Instant::now() });
        Arc::new(Self { backend, active: AtomicUsize::new(0), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges under way.
    pub(super) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Counts one more exchange, unless there are `limit` already.
    pub(super) fn admit(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        let more = |n: usize| (n < limit).then(|| n + 1);
        self.active.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Slot { upstream: self.clone() })
    }

    /// Since when it has had nothing to do; None while it has.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let visited = self.state().visited;
        (self.active() == 0).then_some(visited)
    }

    /// Admits nothing more, if no exchange is under way and the last one was over at `then`.
    pub(super) fn close_if_quiet(&self, then: Instant) -> bool {
        let closed = self.active.compare_exchange(0, CLOSED, Relaxed, Relaxed).is_ok();
        let quiet = closed && self.state().visited <= then;
        if closed && !quiet {
            self.reopen();
        }
        quiet
    }

    /// Takes back [`Self::close_if_quiet`].
    pub(super) fn reopen(&self) {
        self.active.store(0, Relaxed);
    }

    /// True while another dyno should be preferred.
    pub(super) fn is_shunned(&self) -> bool {
        self.state().shunned.is_some_and(|until| Instant::now() < until)
    }

    /// The dyno did not accept a connection.
    pub(super) fn shun(&self, long: Duration) {
        self.state().shunned = Some(Instant::now() + long);
    }

    /// The newest idle connection that is ready, if it was last used no longer than `age` ago.
    pub(super) async fn take_idle(&self, age: Duration) -> Option<Sender> {
        loop {
            let (since, mut sender) = self.state().idle.pop_back()?;
            if since.elapsed() > age {
                return None;
            }
            // Just after an exchange the connection's own task may not have come round to saying that it is ready.
            if matches!(timeout(SETTLE, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }

    /// Keeps a connection for the next exchange.
    pub(super) fn give_back(&self, sender: Sender) {
        let mut state = self.state();
        if state.listed && !sender.is_closed() {
            state.idle.push_back((Instant::now(), sender));
        }
    }

    /// Closes connections that have been idle for `keep`.
    pub(super) fn sweep(&self, keep: Duration) {
        self.state().idle.retain(|(since, sender)| since.elapsed() < keep && !sender.is_closed());
    }

    /// The dyno has left the table.
    pub(super) fn retire(&self) {
        let mut state = self.state();
        state.listed = false;
        state.idle.clear();
    }
}

/// A place among a dyno's exchanges; given up when dropped.
pub(super) struct Slot {
    pub(super) upstream: Arc<Upstream>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.upstream.state().visited = Instant::now();
        self.upstream.active.fetch_sub(1, Relaxed);
    }
}

/// A place and a connection.
pub(super) struct Lane {
    pub(super) slot: Slot,
    pub(super) sender: Sender,
    /// The connection has served before, so the dyno may have closed it without our knowing yet.
    pub(super) used: bool,
}

impl Lane {
    /// The exchange is over and left the connection clean.
    pub(super) fn give_back(self) {
        self.slot.upstream.give_back(self.sender);
    }
}
