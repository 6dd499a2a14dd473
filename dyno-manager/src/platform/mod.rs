//! The operations of the platform, one method each: what the API offers is here, without HTTP.
//!
//! Every operation that changes something has the same shape: validate (model) → one store transaction →
//! one event for the [`Engine`] → a line in the app's log. Operations on one app follow one another, so
//! events reach the scheduler in the order in which the store took the changes. They must run to their end
//! once begun: a caller that may be cancelled (an HTTP handler) runs them in a task of their own.

mod apps;
mod builds;
mod config;
mod dynos;
mod engine;
mod error;
mod formation;
mod log_session;
mod names;
mod one_off;
mod releases;
mod sources;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use rand::{TryRngCore, rngs::OsRng};
use uuid::Uuid;

use crate::{
    build::SlugCompiler,
    logs::{LogHub, Source},
    model::{App, Egress, Release, Slug},
    schedule::{CurrentRelease, Event},
    store::{Snapshot, Store, StoreError},
};

pub use builds::NewBuildRequest;
pub use dynos::{Run, Started, Target};
pub use engine::Engine;
pub use error::Error;
pub use log_session::{LogRequest, LogSession};
pub use one_off::{ATTACH_WAIT, Ticket, never_ran};
pub use releases::ReleaseRequest;
pub(crate) use sources::hex;
pub use sources::{MAX_SOURCE, Sources, Upload};

/// What the operator decides about the platform as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state directory; `sources`, `slugs` and `builds` in it are used here.
    pub state: PathBuf,
    /// Named as the author of releases and builds.
    pub user: String,
    /// Apps are reached at `http://<app>.<domain>/`; with a port unless it is 80.
    pub domain: String,
    /// The stack's name (`dyno-1`).
    pub stack: String,
    /// Network policy of builds that name none.
    pub egress: Egress,
}

/// The platform. Shared by everything that changes desired state.
pub struct Platform {
    settings: Settings,
    store: Store,
    engine: Arc<dyn Engine>,
    logs: LogHub,
    builds: Arc<dyn SlugCompiler>,
    sources: Arc<Sources>,
    one_offs: Arc<one_off::OneOffs>,
    sessions: log_session::LogSessions,
    locks: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
    /// Held from the check that a slug's file is there to its row, and while files without a row are removed.
    slug_files: tokio::sync::Mutex<()>,
}

impl Platform {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The directory for sources cannot be made or emptied.
    pub fn new(settings: Settings, store: Store, engine: Arc<dyn Engine>, logs: LogHub, builds: Arc<dyn SlugCompiler>) -> io::Result<Arc<Self>> {
        let sources = Sources::open(&settings.state.join("sources"))?;
        Ok(Arc::new(Self {
            settings,
            store,
            engine,
            logs,
            builds,
            sources,
            one_offs: Arc::default(),
            sessions: log_session::LogSessions::default(),
            locks: Mutex::default(),
            slug_files: tokio::sync::Mutex::default(),
        }))
    }

    /// Tells the engine the desired state of every app ([`Event::Loaded`]); called once, at start, before
    /// what runs already is adopted. Removes slug files that no row names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(&self) -> Result<(), Error> {
        for Snapshot { app, release, slug, formation } in self.store.snapshots().await? {
            let release = release.map(|release| current(&release, slug));
            self.engine.apply(Event::Loaded { app, release, formation }).await;
        }
        self.sweep_slugs().await
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Uploads that wait for a build.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// The half that runs dynos.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Where the app is reached.
    pub fn web_url(&self, app: &App) -> String {
        format!("http://{}.{}/", app.name, self.settings.domain)
    }

    /// The lock that keeps operations on one app apart.
    fn lock(&self, app_id: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().expect("no panic happens under this lock");
        locks.entry(app_id).or_default().clone()
    }

    /// A line of `heroku[ps]`.
    fn log(&self, app_id: Uuid, ps: &str, text: &str) {
        self.logs.publish(app_id, Source::Platform, ps, text, Timestamp::now());
    }

    /// A line of `heroku[api]` that names who did it.
    fn log_act(&self, app_id: Uuid, what: &str) {
        self.log(app_id, "api", &format!("{what} by user {}", self.settings.user));
    }
}

/// A release as the scheduler knows it.
fn current(release: &Release, slug: Option<Slug>) -> CurrentRelease {
    CurrentRelease { version: release.version, slug, config: release.config.clone() }
}

/// 128 random bits from the kernel, as hex: a name that cannot be guessed.
fn secret() -> String {
    let mut bytes = [0u8; 16];
    // The kernel's generator does not fail once it is seeded (getrandom(2)), which it is long before us.
    OsRng.try_fill_bytes(&mut bytes).expect("getrandom(2)");
    hex(&bytes)
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NotFound { what, name } => Self::not_found(what, name),
            StoreError::Conflict(why) => Self::Conflict(why),
            StoreError::Invalid(why) => why.into(),
            StoreError::UnknownType { wanted, known } => Self::no_process_type(wanted, known.iter().map(crate::model::ProcessType::as_str)),
            fault => Self::internal(fault),
        }
    }
}
