//! Accepts builds, keeps one per app and few per host, and tells their outcome exactly once.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{BuildRequest, Finish, OutputReader, Settings, SlugCompiler, StartError};
use crate::warden;

/// Runs builds as dynos of `warden`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Builder {}

impl Builder {
    /// Makes the directories of `settings.state` that builds need and removes what a killed daemon
    /// left half written there.
    ///
    /// # Errors
    /// A directory cannot be made or read.
    pub fn new(_settings: Settings, _warden: warden::Client) -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// At daemon start: frees the dynos of builds that the former daemon ran, and ends the output of
    /// each of `pending` (the records still pending) with a line that says so.
    ///
    /// # Errors
    /// The warden cannot be asked.
    pub async fn recover(&self, _pending: &[Uuid]) -> Result<(), warden::WardenError> {
        Ok(())
    }

    /// Cancels every build and waits until all have told their outcome.
    pub async fn shutdown(&self) {}
}

impl SlugCompiler for Builder {
    fn start(&self, _request: BuildRequest, _finish: Finish) -> Result<(), StartError> {
        Ok(())
    }

    fn output(&self, _build: Uuid) -> BoxFuture<'_, std::io::Result<Option<OutputReader>>> {
        Box::pin(async { Ok(None) })
    }

    fn cancel(&self, _build: Uuid) -> bool {
        false
    }

    fn purge_cache(&self, _app: Uuid) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
