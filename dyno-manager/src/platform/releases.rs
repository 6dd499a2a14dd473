//! Releases: read, made from a slug, gone back to.

use uuid::Uuid;

use super::{Error, Platform, current};
use crate::{
    model::{App, ConfigVars, Release, Slug},
    schedule::Event,
    store::{Released, RollbackTo},
};

/// What to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseRequest {
    /// A slug of this app with the config vars of now.
    Slug {
        /// Which.
        id: Uuid,
        /// Said of the release; "Deploy 6933f9b" if none.
        description: Option<String>,
    },
    /// Slug and config vars of an earlier release: `7`, `v7`, its id; None is the one before the current one.
    Rollback(Option<String>),
}

impl Platform {
    /// All releases by version, and the version in force.
    ///
    /// # Errors
    /// Not found.
    pub async fn releases(&self, app: &App) -> Result<(Vec<Release>, Option<u32>), Error> {
        let current = self.store.current_release(app.id).await?;
        Ok((self.store.releases(app.id).await?, current.map(|r| r.version)))
    }

    /// One release by `7`, `v7` or id, and the version in force.
    ///
    /// # Errors
    /// Not found.
    pub async fn release(&self, app: &App, version_or_id: &str) -> Result<(Release, Option<u32>), Error> {
        let release = self.store.find_release(app.id, version_or_id).await?;
        let current = self.store.current_release(app.id).await?;
        Ok((release, current.map(|r| r.version)))
    }

    /// The config vars that a release froze.
    ///
    /// # Errors
    /// Not found.
    pub async fn release_config(&self, app: &str, version_or_id: &str) -> Result<ConfigVars, Error> {
        let app = self.app(app).await?;
        Ok(self.store.find_release(app.id, version_or_id).await?.config)
    }

    /// One slug of the app.
    ///
    /// # Errors
    /// Not found.
    pub async fn slug(&self, app: &App, id: &str) -> Result<Slug, Error> {
        let id: Uuid = id.parse().map_err(|_| Error::not_found("slug", id))?;
        Ok(self.store.slug(app.id, id).await?)
    }

    /// Makes a release; it is in force when this returns.
    ///
    /// # Errors
    /// Not found, or the store's rules for it (conflict).
    pub async fn create_release(&self, app: &App, request: ReleaseRequest) -> Result<Release, Error> {
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let user = self.settings.user.clone();
        let made = match request {
            ReleaseRequest::Slug { id, description } => {
                let slug = self.store.slug(app.id, id).await?;
                let description = description.unwrap_or_else(|| deploy(slug.commit.as_deref(), &slug.sha256));
                self.store.release_slug(app.id, id, description, user).await?
            }
            ReleaseRequest::Rollback(to) => self.store.rollback(app.id, self.rollback_to(app, to).await?, user).await?,
        };
        let release = made.release.clone();
        self.enforce(made).await;
        Ok(release)
    }

    async fn rollback_to(&self, app: &App, to: Option<String>) -> Result<RollbackTo, Error> {
        let Some(to) = to else { return Ok(RollbackTo::Previous) };
        Ok(RollbackTo::Id(self.store.find_release(app.id, &to).await?.id))
    }

    /// Tells engine and log of a release that is in force from now on. The caller holds the app's lock.
    pub(super) async fn enforce(&self, made: Released) {
        let (app_id, release) = (made.app.id, made.release);
        self.log_act(app_id, &release.description);
        self.log_act(app_id, &format!("Release v{} created", release.version));
        let release = current(&release, made.slug);
        self.engine.apply(Event::Released { app_id, release, formation: made.formation }).await;
    }
}

/// "Deploy 6933f9b": the source's version as the client named it, else the slug's own hash; eight characters of it.
pub(super) fn deploy(commit: Option<&str>, sha256: &str) -> String {
    let version: String = commit.filter(|c| !c.is_empty()).unwrap_or(sha256).chars().take(8).collect();
    format!("Deploy {version}")
}
