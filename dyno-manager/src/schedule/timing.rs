//! The scheduler's patience, in one place.

use std::time::Duration;

use jiff::Timestamp;

/// How long the scheduler waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A web dyno must bind its port within this (R10). Heroku: 60 s.
    pub boot: Duration,
    /// From SIGTERM to SIGKILL (R12). Heroku: 30 s.
    pub stop: Duration,
    /// From one SIGKILL to the next while the exit is still missing: a signal may be lost with the process that was to send it.
    pub kill_again: Duration,
    /// From the first crash to the next try; doubled with every further crash.
    pub retry_first: Duration,
    /// The longest wait between a crash and the next try.
    pub retry_max: Duration,
    /// A dyno that was up this long starts counting crashes anew.
    pub steady: Duration,
    /// How long a one-off that ended stays in the table, for those who ask late how it ended.
    pub keep_ended: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(60),
            stop: Duration::from_secs(30),
            kill_again: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
            steady: Duration::from_secs(60),
            keep_ended: Duration::from_secs(60),
        }
    }
}

impl Timing {
    /// The wait between crash number `crashes` (1 and up) in a row and the next try.
    pub fn retry(&self, crashes: u32) -> Duration {
        let factor = 2u32.saturating_pow(crashes.saturating_sub(1));
        self.retry_first.saturating_mul(factor).min(self.retry_max)
    }
}

/// `at + wait`, clipped to the end of representable time.
pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}
