//! Apps and their run numbers.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    AppChange, Destroyed, Result, Snapshot, Store, StoreError,
    columns::{Micros, Text},
    formation, now, releases, slugs,
};
use crate::model::{App, AppName};

impl Store {
    /// Records a new app, without a release.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn create_app(&self, name: AppName) -> Result<App> {
        self.transact(move |tx| {
            check_free(tx, &name)?;
            let id = Uuid::new_v4();
            let sql = "INSERT INTO apps (id, name, maintenance, created_at, updated_at) VALUES (?1, ?2, 0, ?3, ?3)";
            tx.execute(sql, params![Text(id), Text(&name), Micros(now())])?;
            get(tx, id)
        })
        .await
    }

    /// All apps, by name.
    pub async fn apps(&self) -> Result<Vec<App>> {
        self.transact(all).await
    }

    /// The app of that name or id.
    pub async fn find_app(&self, name_or_id: &str) -> Result<App> {
        let wanted = name_or_id.to_owned();
        self.transact(move |tx| match wanted.parse::<Uuid>() {
            Ok(id) => get(tx, id),
            Err(_) => one(tx, "name = ?1", &wanted),
        })
        .await
    }

    /// Renames an app or switches its maintenance mode.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the new name is taken.
    pub async fn change_app(&self, app_id: Uuid, change: AppChange) -> Result<App> {
        self.transact(move |tx| {
            let old = get(tx, app_id)?;
            let name = change.name.unwrap_or_else(|| old.name.clone());
            let maintenance = change.maintenance.unwrap_or(old.maintenance);
            if name == old.name && maintenance == old.maintenance {
                return Ok(old);
            }
            if name != old.name {
                check_free(tx, &name)?;
            }
            let sql = "UPDATE apps SET name = ?2, maintenance = ?3, updated_at = ?4 WHERE id = ?1";
            tx.execute(sql, params![Text(app_id), Text(&name), maintenance, Micros(now())])?;
            get(tx, app_id)
        })
        .await
    }

    /// Deletes an app and all its rows. The caller ends its dynos and deletes the files named in the answer;
    /// files that a crash leaves behind are found by [`Store::slugs_in_use`] at the next start.
    pub async fn destroy_app(&self, app_id: Uuid) -> Result<Destroyed> {
        self.transact(move |tx| {
            let app = get(tx, app_id)?;
            let mut builds = tx.prepare("SELECT id FROM builds WHERE app_id = ?1")?;
            let builds = builds.query_map([Text(app_id)], |row| Ok(row.get::<_, Text<Uuid>>(0)?.0))?.collect::<rusqlite::Result<_>>()?;
            let slugs = slugs::only_of(tx, app_id)?;
            tx.execute("DELETE FROM apps WHERE id = ?1", [Text(app_id)])?;
            Ok(Destroyed { app, slugs, builds })
        })
        .await
    }

    /// The app with its current release, slug and formation.
    pub async fn snapshot(&self, app_id: Uuid) -> Result<Snapshot> {
        self.transact(move |tx| in_force(tx, get(tx, app_id)?)).await
    }

    /// All apps with what is in force of them, by name: what a starting daemon has to bring about.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.transact(|tx| all(tx)?.into_iter().map(|app| in_force(tx, app)).collect()).await
    }

    /// The number of the app's next one-off dyno: 1, 2, … never given out twice.
    pub async fn next_run_number(&self, app_id: Uuid) -> Result<u32> {
        self.transact(move |tx| {
            get(tx, app_id)?;
            let sql = "INSERT INTO counters (app_id, name, value) VALUES (?1, 'run', 1)
                       ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value";
            Ok(tx.query_row(sql, [Text(app_id)], |row| row.get(0))?)
        })
        .await
    }
}

/// What the last build detected and when the current release was made are read from the rows that say so.
const SELECT: &str = "SELECT id, name, maintenance, created_at, updated_at,
    (SELECT buildpack FROM slugs WHERE app_id = apps.id ORDER BY created_at DESC, rowid DESC LIMIT 1) AS buildpack,
    (SELECT created_at FROM releases WHERE app_id = apps.id AND status = 'succeeded'
     ORDER BY version DESC LIMIT 1) AS released_at
    FROM apps";

fn read(row: &Row<'_>) -> rusqlite::Result<App> {
    Ok(App {
        id: row.get::<_, Text<_>>("id")?.0,
        name: row.get::<_, Text<_>>("name")?.0,
        maintenance: row.get("maintenance")?,
        buildpack_description: row.get("buildpack")?,
        created_at: row.get::<_, Micros>("created_at")?.0,
        updated_at: row.get::<_, Micros>("updated_at")?.0,
        released_at: row.get::<_, Option<Micros>>("released_at")?.map(|t| t.0),
    })
}

fn one(tx: &Transaction<'_>, condition: &str, value: &str) -> Result<App> {
    let found = tx.query_row(&format!("{SELECT} WHERE {condition}"), [value], read).optional()?;
    found.ok_or_else(|| StoreError::not_found("app", value))
}

pub(super) fn get(tx: &Transaction<'_>, app_id: Uuid) -> Result<App> {
    one(tx, "id = ?1", &app_id.to_string())
}

fn all(tx: &Transaction<'_>) -> Result<Vec<App>> {
    let mut query = tx.prepare(&format!("{SELECT} ORDER BY name"))?;
    Ok(query.query_map([], read)?.collect::<rusqlite::Result<_>>()?)
}

fn check_free(tx: &Transaction<'_>, name: &AppName) -> Result<()> {
    let taken = tx.query_row("SELECT 1 FROM apps WHERE name = ?1", [name.as_str()], |_| Ok(())).optional()?;
    match taken {
        Some(()) => Err(StoreError::Conflict(format!("app name {name} is already taken"))),
        None => Ok(()),
    }
}

fn in_force(tx: &Transaction<'_>, app: App) -> Result<Snapshot> {
    let release = releases::current(tx, app.id)?;
    let slug_id = release.as_ref().and_then(|r| r.slug_id);
    let slug = slug_id.map(|id| slugs::get(tx, app.id, id)).transpose()?;
    let formation = formation::of(tx, slug.as_ref())?;
    Ok(Snapshot { app, release, slug, formation })
}
