//! The numbered releases: a slug and config vars each.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    Released, Result, RollbackTo, Store, StoreError, apps,
    columns::{Json, Micros, Text, Word},
    formation, now, slugs,
};
use crate::model::{ConfigVars, Release, ReleaseStatus};

impl Store {
    /// Makes a release with `changes` applied to the current config vars (`None` removes); None when they change
    /// nothing. The slug stays.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] by the rules of [`ConfigVars::with`]; [`StoreError::Conflict`] while a release is pending.
    pub async fn set_config(
        &self,
        app_id: Uuid,
        changes: Vec<(String, Option<String>)>,
        description: String,
        user: String,
    ) -> Result<Option<Released>> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let (slug_id, old) = basis(tx, app_id)?;
            let config = old.with(changes)?;
            if config == old {
                return Ok(None);
            }
            let draft = Draft { description, user, slug_id, config, status: ReleaseStatus::Succeeded };
            insert(tx, app_id, draft).map(Some)
        })
        .await
    }

    /// The config vars in force; empty before the first release.
    pub async fn config(&self, app_id: Uuid) -> Result<ConfigVars> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            Ok(basis(tx, app_id)?.1)
        })
        .await
    }

    /// Makes a release of one of the app's slugs with the current config vars.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while a release is pending.
    pub async fn release_slug(&self, app_id: Uuid, slug_id: Uuid, description: String, user: String) -> Result<Released> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let slug_id = Some(slugs::get(tx, app_id, slug_id)?.id);
            let config = basis(tx, app_id)?.1;
            insert(tx, app_id, Draft { description, user, slug_id, config, status: ReleaseStatus::Succeeded })
        })
        .await
    }

    /// Makes a release with slug and config vars of an earlier one, described as `Rollback to v3`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when that release never was in effect, has no slug, there is none before the
    /// current one, or a release is pending.
    pub async fn rollback(&self, app_id: Uuid, to: RollbackTo, user: String) -> Result<Released> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let target = rollback_target(tx, app_id, to)?;
            let description = format!("Rollback to v{}", target.version);
            let draft = Draft { description, user, slug_id: target.slug_id, config: target.config, status: ReleaseStatus::Succeeded };
            insert(tx, app_id, draft)
        })
        .await
    }

    /// All releases, by version.
    pub async fn releases(&self, app_id: Uuid) -> Result<Vec<Release>> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            let mut query = tx.prepare("SELECT * FROM releases WHERE app_id = ?1 ORDER BY version")?;
            Ok(query.query_map([Text(app_id)], read)?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// One release, by `7`, `v7` or its id.
    pub async fn find_release(&self, app_id: Uuid, version_or_id: &str) -> Result<Release> {
        let wanted = version_or_id.to_owned();
        self.transact(move |tx| {
            let digits = wanted.strip_prefix('v').unwrap_or(&wanted);
            match (digits.parse(), wanted.parse()) {
                (Ok(version), _) => by_version(tx, app_id, version),
                (_, Ok(id)) => by_id(tx, app_id, id),
                _ => Err(StoreError::not_found("release", &wanted)),
            }
        })
        .await
    }

    /// The release in force: the highest version that succeeded.
    pub async fn current_release(&self, app_id: Uuid) -> Result<Option<Release>> {
        self.transact(move |tx| {
            apps::get(tx, app_id)?;
            current(tx, app_id)
        })
        .await
    }

    /// Records how the release phase of a pending release ended.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not pending.
    pub async fn finish_release(&self, app_id: Uuid, release_id: Uuid, status: ReleaseStatus) -> Result<Released> {
        self.transact(move |tx| {
            let release = by_id(tx, app_id, release_id)?;
            if release.status != ReleaseStatus::Pending {
                return Err(StoreError::Conflict(format!("release v{} is not pending", release.version)));
            }
            tx.execute("UPDATE releases SET status = ?2 WHERE id = ?1", params![Text(release_id), Word(status)])?;
            released(tx, by_id(tx, app_id, release_id)?)
        })
        .await
    }
}

/// A release but for what the store gives it.
pub(super) struct Draft {
    pub description: String,
    pub user: String,
    pub slug_id: Option<Uuid>,
    pub config: ConfigVars,
    pub status: ReleaseStatus,
}

/// Makes the next release of the app, with formation rows for the types that are new.
///
/// While one is pending there is no other: it would be made from what the pending one is about to replace.
pub(super) fn insert(tx: &Transaction<'_>, app_id: Uuid, draft: Draft) -> Result<Released> {
    let sql = "SELECT version FROM releases WHERE app_id = ?1 AND status = 'pending'";
    let pending: Option<u32> = tx.query_row(sql, [Text(app_id)], |row| row.get(0)).optional()?;
    if let Some(version) = pending {
        return Err(StoreError::Conflict(format!("release v{version} is still running its release command")));
    }
    let id = Uuid::new_v4();
    tx.execute(
        "INSERT INTO releases (id, app_id, version, description, user, slug_id, config, status, created_at)
         SELECT ?1, ?2, coalesce(max(version), 0) + 1, ?3, ?4, ?5, ?6, ?7, ?8 FROM releases WHERE app_id = ?2",
        params![
            Text(id),
            Text(app_id),
            draft.description,
            draft.user,
            draft.slug_id.map(Text),
            Json(&draft.config),
            Word(draft.status),
            Micros(now())
        ],
    )?;
    released(tx, by_id(tx, app_id, id)?)
}

fn released(tx: &Transaction<'_>, release: Release) -> Result<Released> {
    let app = apps::get(tx, release.app_id)?;
    let slug = release.slug_id.map(|id| slugs::get(tx, app.id, id)).transpose()?;
    if let Some(slug) = &slug {
        formation::add_missing(tx, slug)?;
    }
    let formation = formation::of(tx, slug.as_ref())?;
    Ok(Released { app, release, slug, formation })
}

/// What the next release keeps where it changes nothing: slug and config vars of the current one.
pub(super) fn basis(tx: &Transaction<'_>, app_id: Uuid) -> Result<(Option<Uuid>, ConfigVars)> {
    Ok(current(tx, app_id)?.map(|release| (release.slug_id, release.config)).unwrap_or_default())
}

pub(super) fn current(tx: &Transaction<'_>, app_id: Uuid) -> Result<Option<Release>> {
    succeeded(tx, app_id, 0)
}

/// The release that was in force `back` releases ago.
fn succeeded(tx: &Transaction<'_>, app_id: Uuid, back: u32) -> Result<Option<Release>> {
    let sql = "SELECT * FROM releases WHERE app_id = ?1 AND status = 'succeeded'
               ORDER BY version DESC LIMIT 1 OFFSET ?2";
    Ok(tx.query_row(sql, params![Text(app_id), back], read).optional()?)
}

fn rollback_target(tx: &Transaction<'_>, app_id: Uuid, to: RollbackTo) -> Result<Release> {
    let target = match to {
        RollbackTo::Version(version) => by_version(tx, app_id, version)?,
        RollbackTo::Id(id) => by_id(tx, app_id, id)?,
        RollbackTo::Previous => {
            succeeded(tx, app_id, 1)?.ok_or_else(|| StoreError::Conflict("there is no earlier release to roll back to".into()))?
        }
    };
    let version = target.version;
    if target.status != ReleaseStatus::Succeeded {
        return Err(StoreError::Conflict(format!("release v{version} was never in effect; roll back to another one")));
    }
    if target.slug_id.is_none() {
        return Err(StoreError::Conflict(format!("release v{version} has no slug; roll back to a later one")));
    }
    Ok(target)
}

fn by_version(tx: &Transaction<'_>, app_id: Uuid, version: u32) -> Result<Release> {
    let sql = "SELECT * FROM releases WHERE app_id = ?1 AND version = ?2";
    let found = tx.query_row(sql, params![Text(app_id), version], read).optional()?;
    found.ok_or_else(|| StoreError::not_found("release", format!("v{version}")))
}

fn by_id(tx: &Transaction<'_>, app_id: Uuid, id: Uuid) -> Result<Release> {
    let sql = "SELECT * FROM releases WHERE app_id = ?1 AND id = ?2";
    let found = tx.query_row(sql, params![Text(app_id), Text(id)], read).optional()?;
    found.ok_or_else(|| StoreError::not_found("release", id))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        id: row.get::<_, Text<_>>("id")?.0,
        app_id: row.get::<_, Text<_>>("app_id")?.0,
        version: row.get("version")?,
        description: row.get("description")?,
        user: row.get("user")?,
        slug_id: row.get::<_, Option<Text<_>>>("slug_id")?.map(|id| id.0),
        config: row.get::<_, Json<_>>("config")?.0,
        status: row.get::<_, Word<_>>("status")?.0,
        created_at: row.get::<_, Micros>("created_at")?.0,
    })
}
