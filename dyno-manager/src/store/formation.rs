//! The formation's rows: what is wanted of each process type.

use rusqlite::{Row, Transaction, params};
use uuid::Uuid;

use super::{
    FormationRow, FormationUpdate, Result, Store, StoreError, apps,
    columns::{Micros, Text},
    now, releases, slugs,
};
use crate::model::{DynoSize, Formation, FormationEntry, Invalid, MAX_QUANTITY, Slug};

impl Store {
    /// One row per process type that the current slug declares, by type.
    pub async fn formation(&self, app_id: Uuid) -> Result<Vec<FormationRow>> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let slug = current_slug(tx, app_id)?;
            slug.map_or(Ok(Vec::new()), |slug| rows(tx, &slug))
        })
        .await
    }

    /// Applies all `updates` or none, and returns the formation then in force.
    ///
    /// # Errors
    /// [`StoreError::UnknownType`] for a type that the current slug does not declare, [`StoreError::Invalid`] for a
    /// quantity over [`crate::model::MAX_QUANTITY`].
    pub async fn scale(&self, app_id: Uuid, updates: Vec<FormationUpdate>) -> Result<Formation> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let slug = current_slug(tx, app_id)?;
            for update in &updates {
                check(update, slug.as_ref())?;
                tx.execute(
                    "UPDATE formation SET updated_at = ?3, quantity = coalesce(?4, quantity), size = coalesce(?5, size)
                     WHERE app_id = ?1 AND process_type = ?2",
                    params![Text(app_id), Text(&update.process_type), Micros(now()), update.quantity, update.size.map(Text)],
                )?;
            }
            of(tx, slug.as_ref())
        })
        .await
    }
}

fn current_slug(tx: &Transaction<'_>, app_id: Uuid) -> Result<Option<Slug>> {
    let slug_id = releases::current(tx, app_id)?.and_then(|release| release.slug_id);
    slug_id.map(|id| slugs::get(tx, app_id, id)).transpose()
}

fn check(update: &FormationUpdate, slug: Option<&Slug>) -> Result<()> {
    let declared = slug.map(|s| &s.process_types);
    if !declared.is_some_and(|types| types.contains_key(&update.process_type)) {
        let known = declared.map(|types| types.keys().cloned().collect()).unwrap_or_default();
        return Err(StoreError::UnknownType { wanted: update.process_type.to_string(), known });
    }
    match update.quantity {
        Some(n) if n > MAX_QUANTITY => Err(Invalid::new("quantity", n, format!("is over the limit of {MAX_QUANTITY} dynos per type")).into()),
        _ => Ok(()),
    }
}

fn read(row: &Row<'_>, slug: &Slug) -> rusqlite::Result<Option<FormationRow>> {
    let process_type = row.get::<_, Text<_>>("process_type")?.0;
    let Some(command) = slug.process_types.get(&process_type).cloned() else {
        return Ok(None);
    };
    Ok(Some(FormationRow {
        id: row.get::<_, Text<_>>("id")?.0,
        process_type,
        command,
        quantity: row.get("quantity")?,
        size: row.get::<_, Text<_>>("size")?.0,
        created_at: row.get::<_, Micros>("created_at")?.0,
        updated_at: row.get::<_, Micros>("updated_at")?.0,
    }))
}

fn rows(tx: &Transaction<'_>, slug: &Slug) -> Result<Vec<FormationRow>> {
    let mut query = tx.prepare("SELECT * FROM formation WHERE app_id = ?1 ORDER BY process_type")?;
    let found = query.query_map([Text(slug.app_id)], |row| read(row, slug))?;
    Ok(found.filter_map(rusqlite::Result::transpose).collect::<rusqlite::Result<_>>()?)
}

/// What runs with `slug`: its types only, whatever other rows there are.
pub(super) fn of(tx: &Transaction<'_>, slug: Option<&Slug>) -> Result<Formation> {
    let rows = slug.map(|slug| rows(tx, slug)).transpose()?.unwrap_or_default();
    Ok(rows.into_iter().map(|r| (r.process_type, FormationEntry { quantity: r.quantity, size: r.size })).collect())
}

/// Gives every type of `slug` a row. A type that is new to the app starts with nothing, but `web` with one dyno: an
/// app answers as soon as it is deployed.
pub(super) fn add_missing(tx: &Transaction<'_>, slug: &Slug) -> Result<()> {
    for process_type in slug.process_types.keys() {
        tx.execute(
            "INSERT INTO formation (id, app_id, process_type, quantity, size, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (app_id, process_type) DO NOTHING",
            params![
                Text(Uuid::new_v4()),
                Text(slug.app_id),
                Text(process_type),
                u32::from(process_type.is_web()),
                Text(DynoSize::default()),
                Micros(now())
            ],
        )?;
    }
    Ok(())
}
