//! The record of what a build asked of the network: one [`Request`] each, sent when it is over.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

/// One request through the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// When it came.
    pub at: Timestamp,
    /// `CONNECT`, `GET`.
    pub method: String,
    /// As asked for.
    pub host: String,
    /// As asked for.
    pub port: u16,
    /// False when the policy refused it.
    pub allowed: bool,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// Bytes from the build: of the tunnel, or of the request's body.
    pub bytes_up: u64,
    /// Bytes to the build.
    pub bytes_down: u64,
    /// The status that the build got.
    pub status: u16,
}

/// Counts one request and sends its record when the last holder is gone, however that comes about.
#[derive(Debug)]
pub(super) struct Meter {
    pub up: AtomicU64,
    pub down: AtomicU64,
    request: Mutex<Request>,
    to: UnboundedSender<Request>,
}

impl Meter {
    pub(super) fn new(method: &str, host: &str, port: u16, to: UnboundedSender<Request>) -> Self {
        let request = Request {
            at: Timestamp::now(),
            method: method.to_owned(),
            host: host.chars().take(256).collect(),
            port,
            allowed: false,
            reason: None,
            bytes_up: 0,
            bytes_down: 0,
            status: 0,
        };
        Self { up: AtomicU64::new(0), down: AtomicU64::new(0), request: Mutex::new(request), to }
    }

    pub(super) fn allow(&self) {
        self.edit(|request| request.allowed = true);
    }

    pub(super) fn answer(&self, status: u16, reason: Option<&str>) {
        self.edit(|request| {
            request.status = status;
            request.reason = reason.map(str::to_owned);
        });
    }

    fn edit(&self, change: impl FnOnce(&mut Request)) {
        change(&mut self.request.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut request = self.request.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        request.bytes_up = self.up.load(Ordering::Relaxed);
        request.bytes_down = self.down.load(Ordering::Relaxed);
        // Nobody listens when the build itself is gone.
        drop(self.to.send(request));
    }
}
