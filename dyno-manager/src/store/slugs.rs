//! Slugs: the records of the images that builds made.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    NewSlug, Result, Store, StoreError,
    columns::{Json, Micros, Text},
    now,
};
use crate::model::Slug;

impl Store {
    /// One slug of the app.
    pub async fn slug(&self, app_id: Uuid, slug_id: Uuid) -> Result<Slug> {
        self.transact(move |tx| get(tx, app_id, slug_id)).await
    }

    /// sha256 of every slug that a row names; other files of the slug directory are left-overs.
    pub async fn slugs_in_use(&self) -> Result<BTreeSet<String>> {
        self.transact(|tx| {
            let mut query = tx.prepare("SELECT DISTINCT sha256 FROM slugs")?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Slug> {
    Ok(Slug {
        id: row.get::<_, Text<_>>("id")?.0,
        app_id: row.get::<_, Text<_>>("app_id")?.0,
        sha256: row.get("sha256")?,
        size: row.get("size")?,
        process_types: row.get::<_, Json<_>>("process_types")?.0,
        buildpack: row.get("buildpack")?,
        stack: row.get("stack")?,
        commit: row.get("source_commit")?,
        created_at: row.get::<_, Micros>("created_at")?.0,
    })
}

pub(super) fn get(tx: &Transaction<'_>, app_id: Uuid, slug_id: Uuid) -> Result<Slug> {
    let sql = "SELECT * FROM slugs WHERE app_id = ?1 AND id = ?2";
    let found = tx.query_row(sql, params![Text(app_id), Text(slug_id)], read).optional()?;
    found.ok_or_else(|| StoreError::not_found("slug", slug_id))
}

pub(super) fn insert(tx: &Transaction<'_>, app_id: Uuid, commit: Option<&str>, new: &NewSlug) -> Result<Slug> {
    let id = Uuid::new_v4();
    tx.execute(
        "INSERT INTO slugs (id, app_id, sha256, size, process_types, buildpack, stack, source_commit, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![Text(id), Text(app_id), new.sha256, new.size, Json(&new.process_types), new.buildpack, new.stack, commit, Micros(now())],
    )?;
    get(tx, app_id, id)
}

/// Images that only this app's rows name: two apps can have built the same bytes.
pub(super) fn only_of(tx: &Transaction<'_>, app_id: Uuid) -> Result<Vec<String>> {
    let mut query = tx.prepare(
        "SELECT DISTINCT sha256 FROM slugs WHERE app_id = ?1
         AND sha256 NOT IN (SELECT sha256 FROM slugs WHERE app_id <> ?1) ORDER BY sha256",
    )?;
    Ok(query.query_map([Text(app_id)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
