//! What goes into the store's operations and what comes back, where the model alone does not say it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{App, AppName, Build, DynoSize, Egress, Formation, ProcessType, Release, Slug};

/// Changes of an app; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppChange {
    /// Its new name.
    pub name: Option<AppName>,
    /// Maintenance mode.
    pub maintenance: Option<bool>,
}

/// An app and what is in force of it, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The app.
    pub app: App,
    /// Its current release: the highest version that succeeded.
    pub release: Option<Release>,
    /// The slug of that release.
    pub slug: Option<Slug>,
    /// One entry per process type that the slug declares; empty without a slug.
    pub formation: Formation,
}

/// A release that was just made, and the app around it. [`Release::status`] tells whether it is in force
/// already; `slug` and `formation` are those of this release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The app, its `released_at` brought up to date.
    pub app: App,
    /// The release.
    pub release: Release,
    /// Its slug.
    pub slug: Option<Slug>,
    /// One entry per process type that the slug declares.
    pub formation: Formation,
}

/// One row of the formation as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormationRow {
    /// Identity; kept for as long as the app lives, also while the type is not declared.
    pub id: Uuid,
    /// `web`.
    pub process_type: ProcessType,
    /// Its command in the current slug.
    pub command: String,
    /// Dynos wanted.
    pub quantity: u32,
    /// Their size.
    pub size: DynoSize,
    /// When the type was first declared.
    pub created_at: Timestamp,
    /// Last change of quantity or size.
    pub updated_at: Timestamp,
}

/// A change of one process type's row; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormationUpdate {
    /// Which type.
    pub process_type: ProcessType,
    /// Dynos wanted.
    pub quantity: Option<u32>,
    /// Their size.
    pub size: Option<DynoSize>,
}

/// A build to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    /// Owner.
    pub app_id: Uuid,
    /// Network policy.
    pub egress: Egress,
    /// Source version, as the client named it.
    pub commit: Option<String>,
    /// sha256 of the source archive as received.
    pub source_sha256: String,
    /// Who started it.
    pub user: String,
}

/// What a build made; the image file must be in place before it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSlug {
    /// Lowercase hex.
    pub sha256: String,
    /// Bytes of the image.
    pub size: u64,
    /// Effective process types.
    pub process_types: BTreeMap<ProcessType, String>,
    /// What was detected ("Python").
    pub buildpack: String,
    /// sha256 of the stack image it was built on.
    pub stack: String,
}

/// A build that succeeded and the release it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The record, now succeeded.
    pub build: Build,
    /// Its release.
    pub released: Released,
}

/// What is left to delete once an app's rows are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroyed {
    /// The app as it was.
    pub app: App,
    /// sha256 of the slug images that no row names any more (`slugs/<sha256>.sqsh`).
    pub slugs: Vec<String>,
    /// Its builds (`builds/<id>.log`).
    pub builds: Vec<Uuid>,
}

/// Which release to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackTo {
    /// The one in force before the current one.
    Previous,
    /// This version.
    Version(u32),
    /// This release.
    Id(Uuid),
}
