//! The part of the warden that builds use, so that a story can be told without a kernel in tests.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::{
    model::Exit,
    warden::{Client, Held, Launch, Started, WardenError},
};

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
