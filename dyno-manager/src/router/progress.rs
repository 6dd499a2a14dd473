//! How far an exchange has come: the clock that both of its directions wind.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{code::Code, settings::Settings};

/// Shared by the request body, the wait for the response, and the response body.
#[derive(Debug)]
pub(super) struct Progress {
    born: Instant,
    /// Microseconds from `born` to the last byte either way.
    moved: AtomicU64,
    /// Microseconds from `born` to the end of the request, plus one; 0 while it is being sent.
    sent: AtomicU64,
    /// The request was sent to its last byte, not given up.
    whole: AtomicBool,
    client_failed: AtomicBool,
    awaits_client: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            moved: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            client_failed: AtomicBool::new(false),
            awaits_client: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Bytes went by.
    pub(super) fn bump(&self) {
        self.moved.store(self.now(), Relaxed);
    }

    /// The request body waits for the client (or, if not, for the dyno to take more).
    pub(super) fn set_awaits_client(&self, awaits: bool) {
        self.awaits_client.store(awaits, Relaxed);
    }

    /// No more of the request will be sent; `whole` if none is missing.
    pub(super) fn request_over(&self, whole: bool) {
        if self.sent.load(Relaxed) == 0 {
            self.whole.store(whole, Relaxed);
            self.sent.store(self.now().saturating_add(1), Relaxed);
        }
    }

    /// True if the dyno got the request to its last byte.
    pub(super) fn whole(&self) -> bool {
        self.whole.load(Relaxed)
    }

    /// The client's half of the connection broke.
    pub(super) fn client_failed(&self) {
        self.client_failed.store(true, Relaxed);
    }

    /// See [`Self::client_failed`].
    pub(super) fn has_client_failed(&self) -> bool {
        self.client_failed.load(Relaxed)
    }

    /// When the exchange has been quiet for too long.
    pub(super) fn quiet_at(&self, idle: Duration) -> Instant {
        self.born + Duration::from_micros(self.moved.load(Relaxed)) + idle
    }

    /// Before the response: when to look again, or what has run out. The first-byte clock starts when the request has
    /// been sent whole; until then only silence counts.
    pub(super) fn before_response(&self, settings: &Settings) -> Result<Instant, Code> {
        let now = Instant::now();
        let sent = self.sent.load(Relaxed);
        if sent > 0 {
            let limit = self.born + Duration::from_micros(sent - 1) + settings.first_byte;
            return if now < limit { Ok(limit) } else { Err(Code::H12) };
        }
        let limit = self.quiet_at(settings.idle);
        if now >= limit {
            // A dyno that takes no more of the request is as late as one that does not answer.
            return Err(if self.awaits_client.load(Relaxed) { Code::H28 } else { Code::H12 });
        }
        // The request may end right after this look, which makes `first_byte` from now the nearest limit.
        Ok(limit.min(now + settings.first_byte))
    }
}
