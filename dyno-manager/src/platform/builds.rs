//! Builds: from an uploaded source to a release in force.

use std::sync::Arc;

use uuid::Uuid;

use super::{Error, Platform, releases::deploy};
use crate::{
    build::{BuildRequest, Outcome, OutputReader, StartError},
    model::{App, Build, BuildStatus, Egress, ReleaseStatus, Slug},
    store::{NewBuild, NewSlug, StoreError},
};

/// A build to start.
#[derive(Debug, Clone)]
pub struct NewBuildRequest {
    /// Id of an uploaded source.
    pub source: String,
    /// sha256 that the archive must have, lowercase hex.
    pub sha256: Option<String>,
    /// Source version, as the client names it.
    pub commit: Option<String>,
    /// The operator's policy if none.
    pub egress: Option<Egress>,
}

impl Platform {
    /// Starts a build and returns at once; its release follows by itself.
    ///
    /// # Errors
    /// No such source, nothing uploaded, a wrong checksum, or another build of the app runs.
    pub async fn start_build(self: &Arc<Self>, app: &App, request: NewBuildRequest) -> Result<Build, Error> {
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let source_sha256 = self.sources.sha256(&request.source)?;
        if request.sha256.as_ref().is_some_and(|want| *want != source_sha256) {
            let what = format!("the source archive's sha256 is {source_sha256}, not the one given; upload it again");
            return Err(Error::Invalid(what));
        }
        let record = NewBuild {
            app_id: app.id,
            egress: request.egress.unwrap_or(self.settings.egress),
            commit: request.commit,
            source_sha256,
            user: self.settings.user.clone(),
        };
        let build = self.store.create_build(record).await?;
        match self.hand_over(app, &build, &request.source).await {
            Ok(()) => {
                self.log_act(app.id, "Build started");
                Ok(build)
            }
            Err(error) => {
                self.store.fail_build(build.id, error.to_string()).await?;
                Err(error)
            }
        }
    }

    async fn hand_over(self: &Arc<Self>, app: &App, build: &Build, source: &str) -> Result<(), Error> {
        let config = self.store.config(app.id).await?;
        let source = self.sources.take(source)?;
        let request = BuildRequest { build: build.clone(), app: app.clone(), source: source.path.clone(), config };
        let (platform, app, record) = (self.clone(), app.clone(), build.clone());
        let finish = move |outcome| -> futures_util::future::BoxFuture<'static, Result<Vec<String>, String>> {
            Box::pin(async move { platform.finish_build(&app, &record, outcome).await })
        };
        let started = self.builds.start(request, Box::new(finish));
        if started.is_err() {
            super::sources::remove(&source.path);
        }
        started.map_err(|error| match error {
            StartError::Busy { .. } => Error::Conflict(error.to_string()),
            StartError::Io { .. } => Error::internal(error),
        })
    }

    /// Stores how a build ended; gives the last lines of its output.
    async fn finish_build(&self, app: &App, build: &Build, outcome: Outcome) -> Result<Vec<String>, String> {
        let lock = self.lock(app.id);
        let _held = lock.lock().await;
        let why = match outcome {
            Outcome::Failed { error } => error,
            Outcome::Built(slug) => match self.release_built(build, slug).await {
                Ok(lines) => return Ok(lines),
                Err(error) => error.to_string(),
            },
        };
        match self.store.fail_build(build.id, why.clone()).await {
            Ok(_) => self.log(app.id, "api", &format!("Build failed: {why}")),
            // The app was destroyed while it was built.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => tracing::error!(%error, build = %build.id, "a failed build stays on record as pending"),
        }
        Err(why)
    }

    async fn release_built(&self, build: &Build, slug: Slug) -> Result<Vec<String>, Error> {
        let description = deploy(build.commit.as_deref(), &slug.sha256);
        let held = self.slug_files.lock().await;
        if !tokio::fs::try_exists(self.slug_path(&slug.sha256)).await.map_err(Error::internal)? {
            // Another app with the same image was destroyed between its making and now.
            return Err(Error::Conflict("the slug's image was removed meanwhile; deploy again".into()));
        }
        let Slug { sha256, size, process_types, buildpack, stack, .. } = slug;
        let slug = NewSlug { sha256, size, process_types, buildpack, stack };
        let finished = self.store.finish_build(build.id, slug, description, ReleaseStatus::Succeeded).await?;
        drop(held);
        let released = finished.released;
        self.log(released.app.id, "api", "Build succeeded");
        let mut lines = vec![format!("Released v{}", released.release.version)];
        if released.slug.as_ref().is_some_and(|slug| slug.process_types.keys().any(|t| t.is_web())) {
            lines.push(format!("{} deployed to Dyno", self.web_url(&released.app)));
        }
        self.enforce(released).await;
        Ok(lines)
    }

    /// All builds, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn builds(&self, app: &App) -> Result<Vec<Build>, Error> {
        Ok(self.store.builds(app.id).await?)
    }

    /// One build.
    ///
    /// # Errors
    /// Not found.
    pub async fn build(&self, app: &App, id: &str) -> Result<Build, Error> {
        let id: Uuid = id.parse().map_err(|_| Error::not_found("build", id))?;
        Ok(self.store.build(app.id, id).await?)
    }

    /// Asks a running build to end; its record says so once it has.
    ///
    /// # Errors
    /// Not found, or it has ended already.
    pub async fn cancel_build(&self, app: &App, id: &str) -> Result<Build, Error> {
        let build = self.build(app, id).await?;
        if build.status != BuildStatus::Pending || !self.builds.cancel(build.id) {
            return Err(Error::Conflict("this build has ended already".into()));
        }
        self.log_act(app.id, "Build canceled");
        Ok(build)
    }

    /// The output of a build from its first byte, live while it runs.
    ///
    /// # Errors
    /// No such build, or its output is not kept any more.
    pub async fn build_output(&self, app: &App, id: &str) -> Result<OutputReader, Error> {
        let build = self.build(app, id).await?;
        let output = self.builds.output(build.id).await.map_err(Error::internal)?;
        output.ok_or_else(|| Error::not_found("build output", id))
    }

    /// Forgets what earlier builds of the app left for the next one.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub async fn purge_cache(&self, app: &App) -> Result<(), Error> {
        self.builds.purge_cache(app.id).await.map_err(Error::internal)
    }
}
