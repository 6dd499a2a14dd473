//! The API's answers, as far as the command line reads them. Fields it can do without are optional, so that
//! it also reads the answers of a newer or older daemon.

use jiff::Timestamp;
use serde::Deserialize;

use crate::model::{DynoName, Exit};

/// An app.
#[derive(Debug, Deserialize)]
pub(super) struct App {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) maintenance: bool,
    pub(super) buildpack_provided_description: Option<String>,
    pub(super) web_url: Option<String>,
    pub(super) slug_size: Option<u64>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) released_at: Option<Timestamp>,
}

/// A dyno.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dyno {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) process_type: String,
    #[serde(default)]
    pub(super) command: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) size: String,
    pub(super) release: Option<ReleaseRef>,
    pub(super) attach_url: Option<String>,
    pub(super) updated_at: Timestamp,
    pub(super) retry_at: Option<Timestamp>,
    pub(super) exit: Option<Exit>,
}

impl Dyno {
    /// Sorts `web.2` before `web.10`, and a dyno before the one that replaces it.
    pub(super) fn order(&self) -> (String, u32, Timestamp) {
        let number = self.name.parse::<DynoName>().map_or(0, |name| name.number);
        (self.process_type.clone(), number, self.updated_at)
    }

    /// Told to end, or ended: another dyno has its place.
    pub(super) fn leaving(&self) -> bool {
        matches!(self.state.as_str(), "stopping" | "down" | "complete")
    }
}

/// The release of a dyno or a build.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ReleaseRef {
    pub(super) version: Option<u32>,
}

/// What is wanted of a process type.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Formation {
    #[serde(rename = "type")]
    pub(super) process_type: String,
    pub(super) quantity: u32,
    pub(super) size: String,
}

/// A release.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Release {
    pub(super) id: String,
    pub(super) version: u32,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) current: bool,
    pub(super) slug: Option<Reference>,
    pub(super) user: Option<User>,
    pub(super) created_at: Timestamp,
}

/// Anything named by its id.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    pub(super) id: String,
}

/// Who did something.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct User {
    pub(super) email: Option<String>,
}

/// The name to show for who did something.
pub(super) fn who(user: Option<&User>) -> String {
    user.and_then(|user| user.email.clone()).unwrap_or_default()
}

/// A build.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Build {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) error: Option<String>,
    pub(super) output_stream_url: Option<String>,
    pub(super) source_blob: Option<SourceVersion>,
    pub(super) slug: Option<Reference>,
    pub(super) release: Option<ReleaseRef>,
    pub(super) user: Option<User>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// The source of a build.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SourceVersion {
    pub(super) version: Option<String>,
}

/// A place to upload source to.
#[derive(Debug, Deserialize)]
pub(super) struct Source {
    pub(super) source_blob: SourceBlob,
}

/// Its two ends.
#[derive(Debug, Deserialize)]
pub(super) struct SourceBlob {
    pub(super) get_url: String,
    pub(super) put_url: String,
}

/// An open log stream.
#[derive(Debug, Deserialize)]
pub(super) struct LogSession {
    pub(super) logplex_url: String,
}
