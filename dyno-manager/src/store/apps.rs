//! Apps and their run numbers.

use uuid::Uuid;

use super::{AppChange, Destroyed, Snapshot, Store, StoreError};
use crate::model::{App, AppName};

#[allow(clippy::unused_async)]
impl Store {
    /// Records a new app, without a release.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn create_app(&self, _name: AppName) -> Result<App, StoreError> {
        unreachable!()
    }

    /// All apps, by name.
    pub async fn apps(&self) -> Result<Vec<App>, StoreError> {
        unreachable!()
    }

    /// The app of that name or id.
    pub async fn find_app(&self, _name_or_id: &str) -> Result<App, StoreError> {
        unreachable!()
    }

    /// Renames an app or switches its maintenance mode.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the new name is taken.
    pub async fn change_app(&self, _app_id: Uuid, _change: AppChange) -> Result<App, StoreError> {
        unreachable!()
    }

    /// Deletes an app and all its rows. The caller ends its dynos and deletes the files named in the answer;
    /// files that a crash leaves behind are found by [`Store::slugs_in_use`] at the next start.
    pub async fn destroy_app(&self, _app_id: Uuid) -> Result<Destroyed, StoreError> {
        unreachable!()
    }

    /// The app with its current release, slug and formation.
    pub async fn snapshot(&self, _app_id: Uuid) -> Result<Snapshot, StoreError> {
        unreachable!()
    }

    /// All apps with what is in force of them, by name: what a starting daemon has to bring about.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, StoreError> {
        unreachable!()
    }

    /// The number of the app's next one-off dyno: 1, 2, … never given out twice.
    pub async fn next_run_number(&self, _app_id: Uuid) -> Result<u32, StoreError> {
        unreachable!()
    }
}
