//! Builds make slugs, slugs and config vars make releases.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConfigVars, Invalid, ProcessType};

/// The product of a build: a squashfs image, by the sha256 of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slug {
    /// Identity.
    pub id: Uuid,
    /// Owner.
    pub app_id: Uuid,
    /// Lowercase hex; the file is `slugs/<sha256>.sqsh` of the state directory.
    pub sha256: String,
    /// Bytes of the image.
    pub size: u64,
    /// Effective process types: the buildpack's defaults overlaid by the Procfile.
    pub process_types: BTreeMap<ProcessType, String>,
    /// What was detected ("Python").
    pub buildpack: String,
    /// sha256 of the stack image it was built on.
    pub stack: String,
    /// The source's version, as the client named it.
    pub commit: Option<String>,
    /// Creation time.
    pub created_at: Timestamp,
}

/// Whether a release has taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// Its release phase is running.
    Pending,
    /// In effect, or was.
    Succeeded,
    /// Its release phase failed; it was never in effect.
    Failed,
}

/// A numbered pair of slug and config vars. Never changed once made; a rollback makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Identity.
    pub id: Uuid,
    /// Owner.
    pub app_id: Uuid,
    /// 1, 2, … shown as `v1`.
    pub version: u32,
    /// "Deploy 6933f9b", "Set A config vars", "Rollback to v3".
    pub description: String,
    /// Who made it.
    pub user: String,
    /// None before the first build.
    pub slug_id: Option<Uuid>,
    /// The config vars in force.
    pub config: ConfigVars,
    /// Release phase.
    pub status: ReleaseStatus,
    /// Creation time.
    pub created_at: Timestamp,
}

/// Whether a build is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Running.
    Pending,
    /// It made a slug and a release.
    Succeeded,
    /// It made nothing; the running release is untouched.
    Failed,
}

/// What the network of a build reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Nothing.
    None,
    /// The package registries of the stack's own clients, through the recording proxy.
    #[default]
    Registries,
    /// Any public host, through the recording proxy.
    Open,
}

impl FromStr for Egress {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "none" => Ok(Self::None),
            "registries" => Ok(Self::Registries),
            "open" => Ok(Self::Open),
            _ => Err(Invalid::new("build egress", s, "must be none, registries or open")),
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Registries => "registries",
            Self::Open => "open",
        })
    }
}

/// One attempt to turn source into a slug. Its output is a file of the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Identity.
    pub id: Uuid,
    /// Owner.
    pub app_id: Uuid,
    /// Progress.
    pub status: BuildStatus,
    /// The slug, once made.
    pub slug_id: Option<Uuid>,
    /// The release, once made.
    pub release_id: Option<Uuid>,
    /// What went wrong, in one line.
    pub error: Option<String>,
    /// Network policy.
    pub egress: Egress,
    /// Source version, as the client named it.
    pub commit: Option<String>,
    /// sha256 of the source archive as received.
    pub source_sha256: String,
    /// Who started it.
    pub user: String,
    /// Start.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}
