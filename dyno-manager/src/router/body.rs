//! The two bodies of an exchange, as streams that keep its clock and its ticket.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{code::Code, line::Ticket, pool::Lane, progress::Progress};

/// A request body on its way to a dyno.
pub(super) struct Upload {
    inner: Option<Incoming>,
    progress: Arc<Progress>,
}

impl Upload {
    pub(super) fn new(inner: Incoming, progress: Arc<Progress>) -> Self {
        if inner.is_end_stream() {
            return Self::empty(progress);
        }
        Self { inner: Some(inner), progress }
    }

    /// No body: the request is over when its head is sent.
    pub(super) fn empty(progress: Arc<Progress>) -> Self {
        progress.request_over(true);
        Self { inner: None, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { inner: Some(inner), progress } = &mut *self else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        progress.set_awaits_client(polled.is_pending());
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => {
                progress.bump();
                if inner.is_end_stream() {
                    progress.request_over(true);
                }
            }
            Poll::Ready(Some(Err(_))) => {
                progress.client_failed();
                progress.request_over(false);
            }
            Poll::Ready(None) => progress.request_over(true),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.progress.request_over(self.is_end_stream());
    }
}

/// What the client gets.
pub(super) enum Answer {
    /// The router's own words.
    Page(Full<Bytes>),
    /// The dyno's.
    Relay(Box<Relay>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Page(page) => Pin::new(page).poll_frame(cx).map_err(|never| match never {}),
            Self::Relay(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page) => page.is_end_stream(),
            Self::Relay(relay) => relay.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page) => page.size_hint(),
            Self::Relay(relay) => relay.inner.size_hint(),
        }
    }
}

/// A response body on its way to the client. Holds the lane, and writes the exchange's log line at its end.
pub(super) struct Relay {
    inner: Incoming,
    ticket: Ticket,
    lane: Option<Lane>,
    progress: Arc<Progress>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub(super) fn new(inner: Incoming, ticket: Ticket, lane: Lane, progress: Arc<Progress>, idle: Duration) -> Self {
        progress.bump();
        let mut relay = Self { inner, ticket, lane: Some(lane), progress, idle, timer: None };
        if relay.inner.is_end_stream() {
            relay.end(); // no body, as to HEAD: nobody will poll this
        }
        relay
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.progress.bump();
                self.ticket.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.inner.is_end_stream() {
                    self.end(); // with a known length hyper does not poll once more
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.broken(if self.progress.has_client_failed() { Code::H27 } else { Code::H18 });
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_quiet(cx));
                self.broken(Code::H15);
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
        }
    }

    /// Ready when neither side has sent a byte for too long.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let limit = self.progress.quiet_at(self.idle);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(limit)));
            ready!(timer.as_mut().poll(cx));
            if limit <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(limit);
        }
    }

    fn end(&mut self) {
        self.ticket.finish();
        // A request that was cut short leaves its connection in no state to carry another.
        if let Some(lane) = self.lane.take().filter(|_| self.progress.whole()) {
            lane.give_back();
        }
    }

    fn broken(&mut self, code: Code) {
        self.ticket.fault(code);
        self.lane = None;
    }
}
