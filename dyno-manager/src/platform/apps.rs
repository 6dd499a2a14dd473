//! Apps come and go.

use std::path::Path;

use uuid::Uuid;

use super::{Error, Platform, names};
use crate::{
    model::{App, AppName, BuildStatus},
    schedule::Event,
    store::{AppChange, Destroyed, StoreError},
};

/// Suggested names that are tried before giving up.
const NAME_TRIES: usize = 8;

impl Platform {
    /// Makes an app; without a name, one is suggested.
    ///
    /// # Errors
    /// A bad name, or one that is taken.
    pub async fn create_app(&self, name: Option<&str>) -> Result<App, Error> {
        let app = match name {
            Some(name) => self.store.create_app(name.parse::<AppName>()?).await?,
            None => self.create_named_app().await?,
        };
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        self.engine.apply(Event::AppCreated { app: app.clone() }).await;
        self.log_act(app.id, "App created");
        Ok(app)
    }

    async fn create_named_app(&self) -> Result<App, Error> {
        for _ in 0..NAME_TRIES {
            match self.store.create_app(names::suggest().parse()?).await {
                Err(StoreError::Conflict(_)) => {}
                result => return Ok(result?),
            }
        }
        Err(Error::Conflict("every suggested name was taken; give the app a name".into()))
    }

    /// All apps, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn apps(&self) -> Result<Vec<App>, Error> {
        Ok(self.store.apps().await?)
    }

    /// The app of that name or id.
    ///
    /// # Errors
    /// Not found.
    pub async fn app(&self, name_or_id: &str) -> Result<App, Error> {
        Ok(self.store.find_app(name_or_id).await?)
    }

    /// Bytes of the slug in force.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn slug_size(&self, app: &App) -> Result<Option<u64>, Error> {
        Ok(self.store.snapshot(app.id).await?.slug.map(|slug| slug.size))
    }

    /// Renames an app, switches its maintenance mode.
    ///
    /// # Errors
    /// Not found, a bad name, or one that is taken.
    pub async fn change_app(&self, app: &str, name: Option<&str>, maintenance: Option<bool>) -> Result<App, Error> {
        let name = name.map(str::parse).transpose()?;
        let before = self.app(app).await?;
        let lock = self.lock(before.id);
        let _held = lock.lock().await;
        let app = self.store.change_app(before.id, AppChange { name, maintenance }).await?;
        self.engine.apply(Event::AppChanged { app: app.clone() }).await;
        if app.maintenance != before.maintenance {
            let word = if app.maintenance { "enabled" } else { "disabled" };
            self.log_act(app.id, &format!("Maintenance mode {word}"));
        }
        if app.name != before.name {
            self.log_act(app.id, &format!("Renamed from {} to {}", before.name, app.name));
        }
        Ok(app)
    }

    /// Ends the app: its builds, its dynos, its records, its files.
    ///
    /// # Errors
    /// Not found.
    pub async fn destroy_app(&self, app: &str) -> Result<App, Error> {
        let app = self.app(app).await?;
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let builds = self.store.builds(app.id).await?;
        let destroyed = self.store.destroy_app(app.id).await?;
        for build in builds.iter().filter(|b| b.status == BuildStatus::Pending) {
            self.builds.cancel(build.id);
        }
        self.engine.apply(Event::AppDestroyed { app_id: app.id }).await;
        self.remove_files(&destroyed).await;
        tokio::spawn(forget_log(self.engine.clone(), self.logs.clone(), app.id));
        self.locks.lock().expect("no panic happens under this lock").remove(&app.id);
        Ok(destroyed.app)
    }

    /// Files are only space once no row names them: what cannot be removed is told to the operator, not the client.
    async fn remove_files(&self, destroyed: &Destroyed) {
        let _held = self.slug_files.lock().await;
        let in_use = self.store.slugs_in_use().await.ok();
        for sha256 in &destroyed.slugs {
            // Another app's build may have made the same image since.
            if in_use.as_ref().is_some_and(|used| !used.contains(sha256)) {
                remove(&self.slug_path(sha256)).await;
            }
        }
        for build in &destroyed.builds {
            remove(&self.settings.state.join("builds").join(format!("{build}.log"))).await;
        }
        if let Err(error) = self.builds.purge_cache(destroyed.app.id).await {
            tracing::warn!(%error, app = %destroyed.app.name, "the build cache stays behind");
        }
    }

    /// Removes slug files that no row names: left by a build or a destruction that a crash cut short.
    pub(super) async fn sweep_slugs(&self) -> Result<(), Error> {
        let _held = self.slug_files.lock().await;
        let in_use = self.store.slugs_in_use().await?;
        let Ok(mut entries) = tokio::fs::read_dir(self.settings.state.join("slugs")).await else { return Ok(()) };
        while let Some(entry) = entries.next_entry().await.map_err(Error::internal)? {
            let name = entry.file_name();
            let sha256 = name.to_str().and_then(|n| n.strip_suffix(".sqsh"));
            if sha256.is_some_and(|sha256| !in_use.contains(sha256)) {
                remove(&entry.path()).await;
            }
        }
        Ok(())
    }

    /// Where the image of a slug is.
    pub(super) fn slug_path(&self, sha256: &str) -> std::path::PathBuf {
        self.settings.state.join("slugs").join(format!("{sha256}.sqsh"))
    }
}

async fn remove(path: &Path) {
    if let Err(error) = tokio::fs::remove_file(path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a file without a record stays behind");
    }
}

/// A destroyed app's dynos still write while they end; its log goes after the last of them.
async fn forget_log(engine: std::sync::Arc<dyn super::Engine>, logs: crate::logs::LogHub, app_id: Uuid) {
    let mut changed = engine.changed();
    while engine.dynos(app_id).iter().any(|d| d.is_alive()) && changed.changed().await.is_ok() {}
    logs.forget(app_id);
}
