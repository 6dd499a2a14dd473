//! Builds, from their start to the release they lead to.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    Finished, NewBuild, NewSlug, Result, Store, StoreError, apps,
    columns::{Micros, Text, Word},
    now,
    releases::{self, Draft},
    slugs,
};
use crate::model::{Build, BuildStatus, ReleaseStatus};

impl Store {
    /// Records a build that starts now.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while another build of the app is pending.
    pub async fn create_build(&self, build: NewBuild) -> Result<Build> {
        self.transact(move |tx| {
            apps::get(tx, build.app_id)?;
            check_idle(tx, build.app_id)?;
            let id = Uuid::new_v4();
            tx.execute(
                "INSERT INTO builds
                 (id, app_id, status, egress, source_commit, source_sha256, user, created_at, updated_at)
                 VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, ?7, ?7)",
                params![Text(id), Text(build.app_id), Text(build.egress), build.commit, build.source_sha256, build.user, Micros(now())],
            )?;
            get(tx, id)
        })
        .await
    }

    /// Records slug, release (with the current config vars) and formation of a build, and that it succeeded.
    /// `status` is `Pending` when a release phase has to run first, else `Succeeded`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the build is not pending any more or another release is pending.
    pub async fn finish_build(&self, build_id: Uuid, slug: NewSlug, description: String, status: ReleaseStatus) -> Result<Finished> {
        self.transact(move |tx| {
            let build = get(tx, build_id)?;
            if build.status != BuildStatus::Pending {
                let why = build.error.map(|e| format!(": {e}")).unwrap_or_default();
                return Err(StoreError::Conflict(format!("build {build_id} has ended already{why}")));
            }
            let slug = slugs::insert(tx, build.app_id, build.commit.as_deref(), &slug)?;
            let config = releases::basis(tx, build.app_id)?.1;
            let draft = Draft { description, user: build.user, slug_id: Some(slug.id), config, status };
            let released = releases::insert(tx, build.app_id, draft)?;
            tx.execute(
                "UPDATE builds SET status = 'succeeded', slug_id = ?2, release_id = ?3, updated_at = ?4 WHERE id = ?1",
                params![Text(build_id), Text(slug.id), Text(released.release.id), Micros(now())],
            )?;
            Ok(Finished { build: get(tx, build_id)?, released })
        })
        .await
    }

    /// Records that a build failed and why, in one line. A build that failed before keeps its first reason.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has succeeded.
    pub async fn fail_build(&self, build_id: Uuid, error: String) -> Result<Build> {
        self.transact(move |tx| {
            let build = get(tx, build_id)?;
            match build.status {
                BuildStatus::Failed => return Ok(build),
                BuildStatus::Succeeded => {
                    return Err(StoreError::Conflict(format!("build {build_id} has succeeded already")));
                }
                BuildStatus::Pending => {}
            }
            tx.execute(
                "UPDATE builds SET status = 'failed', error = ?2, updated_at = ?3 WHERE id = ?1",
                params![Text(build_id), error, Micros(now())],
            )?;
            get(tx, build_id)
        })
        .await
    }

    /// All builds of the app, oldest first.
    pub async fn builds(&self, app_id: Uuid) -> Result<Vec<Build>> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let mut query = tx.prepare("SELECT * FROM builds WHERE app_id = ?1 ORDER BY created_at, rowid")?;
            Ok(query.query_map([Text(app_id)], read)?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// One build of the app.
    pub async fn build(&self, app_id: Uuid, build_id: Uuid) -> Result<Build> {
        self.transact(move |tx| {
            let build = get(tx, build_id)?;
            if build.app_id == app_id { Ok(build) } else { Err(StoreError::not_found("build", build_id)) }
        })
        .await
    }
}

fn check_idle(tx: &Transaction<'_>, app_id: Uuid) -> Result<()> {
    let sql = "SELECT id FROM builds WHERE app_id = ?1 AND status = 'pending'";
    let running: Option<String> = tx.query_row(sql, [Text(app_id)], |row| row.get(0)).optional()?;
    match running {
        Some(id) => Err(StoreError::Conflict(format!("build {id} of this app is still running; wait for it or cancel it"))),
        None => Ok(()),
    }
}

fn get(tx: &Transaction<'_>, build_id: Uuid) -> Result<Build> {
    let found = tx.query_row("SELECT * FROM builds WHERE id = ?1", [Text(build_id)], read).optional()?;
    found.ok_or_else(|| StoreError::not_found("build", build_id))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: row.get::<_, Text<_>>("id")?.0,
        app_id: row.get::<_, Text<_>>("app_id")?.0,
        status: row.get::<_, Word<_>>("status")?.0,
        slug_id: row.get::<_, Option<Text<_>>>("slug_id")?.map(|id| id.0),
        release_id: row.get::<_, Option<Text<_>>>("release_id")?.map(|id| id.0),
        error: row.get("error")?,
        egress: row.get::<_, Text<_>>("egress")?.0,
        commit: row.get("source_commit")?,
        source_sha256: row.get("source_sha256")?,
        user: row.get("user")?,
        created_at: row.get::<_, Micros>("created_at")?.0,
        updated_at: row.get::<_, Micros>("updated_at")?.0,
    })
}
