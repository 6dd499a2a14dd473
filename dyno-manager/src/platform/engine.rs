//! What the platform needs of the half that runs dynos.

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    model::{DynoId, Exit},
    schedule,
    warden::StdioFds,
};

/// Takes events to `schedule::step`, carries out the actions, and tells what is running.
pub trait Engine: Send + Sync + 'static {
    /// Takes one event; returns once the step's effects are visible in [`Self::dynos`].
    fn apply(&self, event: schedule::Event) -> BoxFuture<'_, ()>;
    /// The dynos of an app, launches that are being stopped included.
    fn dynos(&self, app_id: Uuid) -> Vec<schedule::Dyno>;
    /// Changes at every step: await it instead of polling.
    fn changed(&self) -> watch::Receiver<u64>;
    /// The standard streams of a one-off, once; resolves when it has started, None when it never will.
    fn take_attach(&self, dyno: DynoId) -> BoxFuture<'_, Option<StdioFds>>;
    /// Resolves when the dyno has ended; None for one that never ran.
    fn exit(&self, dyno: DynoId) -> BoxFuture<'_, Option<Exit>>;
    /// Sends a signal to all processes of the dyno.
    fn signal(&self, dyno: DynoId, signal: i32) -> BoxFuture<'_, ()>;
}
