//! What an operator decides about builds.

use std::{path::PathBuf, time::Duration};

use dyno_runtime::Layer;
use uuid::Uuid;

/// A squashfs image that the platform made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The file, absolute.
    pub path: PathBuf,
    /// Lowercase hex sha256 of its bytes.
    pub sha256: String,
}

impl From<&Image> for Layer {
    fn from(image: &Image) -> Self {
        Self::Image { path: image.path.clone(), sha256: image.sha256.clone() }
    }
}

/// Ends the name of a file that says of a build that it runs.
pub(super) const MARK: &str = "running";

/// What every build of this host shares.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state directory; these in it are ours and are made if missing: `builds` (`<id>.log` and
    /// `<id>.requests.jsonl`), `slugs` (`<sha256>.sqsh`) and `cache` (`<app id>.sqsh`).
    pub state: PathBuf,
    /// The image that apps run on.
    pub stack: Image,
    /// What `STACK` says in a build.
    pub stack_name: String,
    /// The image with `/buildpacks`.
    pub buildpacks: Image,
    /// Hosts of [`crate::model::Egress::Registries`]: `host`, `.suffix` (any host below it), either
    /// with `:port` for a port other than 80 and 443.
    pub registries: Vec<String>,
    /// Lets hosts of `registries` resolve to private addresses (a mirror inside the house).
    pub allow_private: bool,
    /// The host's own certificate bundle, mounted over the stack's: builds trust what the host trusts.
    pub ca_bundle: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}

impl Settings {
    pub(super) fn builds(&self) -> PathBuf {
        self.state.join("builds")
    }

    pub(super) fn slugs(&self) -> PathBuf {
        self.state.join("slugs")
    }

    pub(super) fn caches(&self) -> PathBuf {
        self.state.join("cache")
    }

    /// What the build and the platform printed.
    pub(super) fn output(&self, build: Uuid) -> PathBuf {
        self.builds().join(format!("{build}.log"))
    }

    /// There while the build runs.
    pub(super) fn mark(&self, build: Uuid) -> PathBuf {
        self.builds().join(format!("{build}.{MARK}"))
    }

    /// What it asked of the network, one JSON object a line.
    pub(super) fn requests(&self, build: Uuid) -> PathBuf {
        self.builds().join(format!("{build}.requests.jsonl"))
    }
}

/// Bounds of one build, and how many run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time of the build dyno.
    pub build_time: Duration,
    /// Wall-clock time of the pack dyno.
    pub pack_time: Duration,
    /// Bytes of output kept.
    pub output_bytes: u64,
    /// Bytes of a slug.
    pub slug_bytes: u64,
    /// Bytes of a build cache.
    pub cache_bytes: u64,
    /// Builds of the whole host at once; the others wait.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            build_time: Duration::from_secs(15 * 60),
            pack_time: Duration::from_secs(5 * 60),
            output_bytes: 300 << 20,
            slug_bytes: 1 << 30,
            cache_bytes: 2 << 30,
            at_once: 2,
        }
    }
}
