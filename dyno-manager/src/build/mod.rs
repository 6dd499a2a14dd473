//! Source in, slug out: a build is two dynos, and this module is their story.
//!
//! ```text
//!  source ─▶ [source] clean tar ─▶ build dyno ─▶ tree ─▶ pack dyno ─▶ [frames] ─▶ slug, cache
//!                                    │  └─ [egress] registries, recorded
//!                                    └──── [output] the log that people watch
//! ```
//!
//! Foreign bytes are only ever parsed here, in the unprivileged daemon, and unpacked or run only
//! inside a dyno. A build changes nothing that others see until its slug is on disk under the
//! name of its hash; then the caller's [`Finish`] makes the release.

mod builder;
pub mod egress;
mod failure;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod host;
mod images;
mod output;
mod pack;
mod release_file;
mod requests;
mod sandbox;
mod settings;
pub mod source;
mod story;
mod superblock;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf};

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::model::{App, Build, ConfigVars, Slug};

pub use builder::Builder;
pub use output::OutputReader;
pub use settings::{Image, Limits, Settings};

/// One build to carry out.
#[derive(Debug)]
pub struct BuildRequest {
    /// The record, already stored as pending; its id names the output.
    pub build: Build,
    /// The app it is for.
    pub app: App,
    /// A tar or tar.gz file as the client sent it. An accepted request takes the file: it is
    /// opened and its name removed.
    pub source: PathBuf,
    /// Config vars that the build sees (one file each, not exported).
    pub config: ConfigVars,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The slug is on disk (`slugs/<sha256>.sqsh`), fsynced; it is in no table yet.
    Built(Slug),
    /// Nothing was made; the output says so already.
    Failed {
        /// One line for the record, as it follows `Push rejected, ` in the output.
        error: String,
    },
}

/// Stores the outcome; called exactly once for every accepted build, even if the build panics.
///
/// For [`Outcome::Built`] it makes the release. Its lines (`Released v5`, `http://… deployed`) are
/// written to the output, indented, under `-----> Launching...`; its error is written as
/// `Push rejected, …`. For [`Outcome::Failed`] the result is ignored.
pub type Finish = Box<dyn FnOnce(Outcome) -> BoxFuture<'static, Result<Vec<String>, String>> + Send>;

/// A build that could not be accepted. `finish` is not called for it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// One build per app at a time.
    #[error("build {running} of this app is still running; wait for it or cancel it")]
    Busy {
        /// The build in the way.
        running: Uuid,
    },
    /// The source or the output file could not be opened.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

/// What the platform asks of builds. [`Builder`] is the one that runs them.
pub trait SlugCompiler: Send + Sync + 'static {
    /// Accepts a build and returns at once; the build waits for a free place of the host by itself.
    /// Must be called on the async runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    fn start(&self, request: BuildRequest, finish: Finish) -> Result<(), StartError>;

    /// The output of a build from its first byte: live while it runs, as long as the file is kept
    /// after. `None` for a build without output.
    fn output(&self, build: Uuid) -> BoxFuture<'_, std::io::Result<Option<OutputReader>>>;

    /// Ends a waiting or running build; false when there is none of this id. Its `finish` follows.
    fn cancel(&self, build: Uuid) -> bool;

    /// Forgets what builds of `app` left for the next build.
    fn purge_cache(&self, app: Uuid) -> BoxFuture<'_, std::io::Result<()>>;
}

fn remove_if_there(path: &std::path::Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
