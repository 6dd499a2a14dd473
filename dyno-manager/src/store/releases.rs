//! Slugs, config vars and the numbered releases made of them.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Released, RollbackTo, Store, StoreError};
use crate::model::{ConfigVars, Release, ReleaseStatus, Slug};

#[allow(clippy::unused_async)]
impl Store {
    /// Makes a release with `changes` applied to the current config vars (`None` removes); None when they change
    /// nothing. The slug stays.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] by the rules of [`ConfigVars::with`]; [`StoreError::Conflict`] while a release is pending.
    pub async fn set_config(
        &self,
        _app_id: Uuid,
        _changes: Vec<(String, Option<String>)>,
        _description: String,
        _user: String,
    ) -> Result<Option<Released>, StoreError> {
        unreachable!()
    }

    /// The config vars in force; empty before the first release.
    pub async fn config(&self, _app_id: Uuid) -> Result<ConfigVars, StoreError> {
        unreachable!()
    }

    /// Makes a release of one of the app's slugs with the current config vars.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while a release is pending.
    pub async fn release_slug(
        &self,
        _app_id: Uuid,
        _slug_id: Uuid,
        _description: String,
        _user: String,
    ) -> Result<Released, StoreError> {
        unreachable!()
    }

    /// Makes a release with slug and config vars of an earlier one, described as `Rollback to v3`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when that release never was in effect, has no slug, there is none before the
    /// current one, or a release is pending.
    pub async fn rollback(&self, _app_id: Uuid, _to: RollbackTo, _user: String) -> Result<Released, StoreError> {
        unreachable!()
    }

    /// All releases, by version.
    pub async fn releases(&self, _app_id: Uuid) -> Result<Vec<Release>, StoreError> {
        unreachable!()
    }

    /// One release, by `7`, `v7` or its id.
    pub async fn find_release(&self, _app_id: Uuid, _version_or_id: &str) -> Result<Release, StoreError> {
        unreachable!()
    }

    /// The release in force: the highest version that succeeded.
    pub async fn current_release(&self, _app_id: Uuid) -> Result<Option<Release>, StoreError> {
        unreachable!()
    }

    /// Records how the release phase of a pending release ended.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not pending.
    pub async fn finish_release(&self, _app_id: Uuid, _release_id: Uuid, _status: ReleaseStatus) -> Result<Released, StoreError> {
        unreachable!()
    }

    /// One slug of the app.
    pub async fn slug(&self, _app_id: Uuid, _slug_id: Uuid) -> Result<Slug, StoreError> {
        unreachable!()
    }

    /// sha256 of every slug that a row names; other files of the slug directory are left-overs.
    pub async fn slugs_in_use(&self) -> Result<BTreeSet<String>, StoreError> {
        unreachable!()
    }
}
