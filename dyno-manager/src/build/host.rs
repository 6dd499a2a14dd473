//! The part of the warden that builds use, so that a story can be told without a kernel in tests.

use std::{io, os::fd::OwnedFd};

use futures_util::future::BoxFuture;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{sync::oneshot, task::spawn_blocking};
use uuid::Uuid;

use crate::{
    model::Exit,
    warden::{Client, Held, Launch, Started, WardenError},
};

const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Starts dynos and tells how they ended; see [`Client`] for each verb.
pub(super) trait Host: Send + Sync {
    fn start<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Started, WardenError>>;
    fn list(&self) -> BoxFuture<'_, Result<Vec<Held>, WardenError>>;
    fn signal(&self, id: Uuid, signal: i32) -> BoxFuture<'_, Result<(), WardenError>>;
    fn exit(&self, id: Uuid) -> BoxFuture<'_, Result<Exit, WardenError>>;
    fn free(&self, id: Uuid) -> BoxFuture<'_, Result<(), WardenError>>;
}

impl Host for Client {
    fn start<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Started, WardenError>> {
        Box::pin(Client::start(self, launch))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Held>, WardenError>> {
        Box::pin(Client::list(self))
    }

    fn signal(&self, id: Uuid, signal: i32) -> BoxFuture<'_, Result<(), WardenError>> {
        Box::pin(Client::signal(self, id, signal))
    }

    fn exit(&self, id: Uuid) -> BoxFuture<'_, Result<Exit, WardenError>> {
        Box::pin(Client::exit(self, id))
    }

    fn free(&self, id: Uuid) -> BoxFuture<'_, Result<(), WardenError>> {
        Box::pin(Client::free(self, id))
    }
}

/// Resolves once the process of `pidfd` has ended: a pidfd is readable from then on (pidfd_open(2)).
///
/// A thread waits, because the runtime takes a foreign descriptor only through calls that are
/// unsafe or deprecated. Builds are few. The thread ends within [`LOOK`] when nobody awaits it.
pub(super) async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    let pidfd = pidfd.try_clone()?;
    let (tell, told) = oneshot::channel();
    spawn_blocking(move || {
        let mut seen = Ok(0);
        while matches!(seen, Ok(0) | Err(Errno::INTR)) && !tell.is_closed() {
            seen = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LOOK));
        }
        // Nobody listens any more when the wait was given up.
        let _unheard = tell.send(seen);
    });
    told.await.map_err(io::Error::other)??;
    Ok(())
}
