//! Limits of the router. The defaults are Heroku's where Heroku has the limit.

use std::time::Duration;

/// Limits of the router; `Settings::default()` is right for production, tests shorten it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time to connect to a dyno: H19 after it.
    pub connect: Duration,
    /// From the end of the request to the first byte of the response: H12 after it.
    pub first_byte: Duration,
    /// Without a byte in either direction once an exchange is under way: H15, or H28 when the client is what is waited for.
    pub idle: Duration,
    /// How long a request waits for a booting app: H20 after it.
    pub boot: Duration,
    /// Exchanges under way per dyno: H11 when all dynos have as many.
    pub active_per_dyno: usize,
    /// Requests that may wait for one booting app: H11 above it.
    pub waiting_per_app: usize,
    /// Bytes of request line and header fields together: 431 above it.
    pub header_bytes: usize,
    /// How long a client may take over a request head, and how long a quiet keep-alive connection stays open.
    pub head: Duration,
    /// A dyno that refused or did not answer a connection is the last choice for this long.
    pub quarantine: Duration,
    /// Idle connections to a dyno are closed after this long, so that servers with few threads get them back.
    pub keep: Duration,
    /// Client connections open at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// After shutdown is asked for, exchanges have this long to finish (H24 after it). Upgraded connections end at once.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(55),
            boot: Duration::from_secs(75),
            active_per_dyno: 50,
            waiting_per_app: 1000,
            header_bytes: 8 * 1024,
            head: Duration::from_secs(60),
            quarantine: Duration::from_secs(5),
            keep: Duration::from_secs(10),
            connections: 10_000,
            drain: Duration::from_secs(10),
        }
    }
}
