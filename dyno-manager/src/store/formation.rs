//! The formation's rows: what is wanted of each process type.

use uuid::Uuid;

use super::{FormationRow, FormationUpdate, Store, StoreError};
use crate::model::Formation;

#[allow(clippy::unused_async)]
impl Store {
    /// One row per process type that the current slug declares, by type.
    pub async fn formation(&self, _app_id: Uuid) -> Result<Vec<FormationRow>, StoreError> {
        unreachable!()
    }

    /// Applies all `updates` or none, and returns the formation then in force.
    ///
    /// # Errors
    /// [`StoreError::UnknownType`] for a type that the current slug does not declare, [`StoreError::Invalid`] for a
    /// quantity over [`crate::model::MAX_QUANTITY`].
    pub async fn scale(&self, _app_id: Uuid, _updates: Vec<FormationUpdate>) -> Result<Formation, StoreError> {
        unreachable!()
    }
}
