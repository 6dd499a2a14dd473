//! Builds, from their start to the release they lead to.

use uuid::Uuid;

use super::{Finished, NewBuild, NewSlug, Store, StoreError};
use crate::model::{Build, ReleaseStatus};

#[allow(clippy::unused_async)]
impl Store {
    /// Records a build that starts now.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while another build of the app is pending.
    pub async fn create_build(&self, _build: NewBuild) -> Result<Build, StoreError> {
        unreachable!()
    }

    /// Records slug, release (with the current config vars) and formation of a build, and that it succeeded.
    /// `status` is `Pending` when a release phase has to run first, else `Succeeded`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the build is not pending any more or another release is pending.
    pub async fn finish_build(
        &self,
        _build_id: Uuid,
        _slug: NewSlug,
        _description: String,
        _status: ReleaseStatus,
    ) -> Result<Finished, StoreError> {
        unreachable!()
    }

    /// Records that a build failed and why, in one line. A build that failed before keeps its first reason.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has succeeded.
    pub async fn fail_build(&self, _build_id: Uuid, _error: String) -> Result<Build, StoreError> {
        unreachable!()
    }

    /// All builds of the app, oldest first.
    pub async fn builds(&self, _app_id: Uuid) -> Result<Vec<Build>, StoreError> {
        unreachable!()
    }

    /// One build of the app.
    pub async fn build(&self, _app_id: Uuid, _build_id: Uuid) -> Result<Build, StoreError> {
        unreachable!()
    }
}
