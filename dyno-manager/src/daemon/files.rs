//! Where things are below the two directories, and who may see them.
//!
//! ```text
//! RUN/            root, 0755
//!   warden/       root, 0711: sock, runtime/ (0700), runtime.lock
//!   api/          dynod, 0700: api.sock, client.json
//! STATE/          dynod, 0700: platform.db, token, slugs/, builds/, cache/, sources/
//! ```

use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Options;

/// Paths of one instance.
#[derive(Debug, Clone)]
pub struct Layout {
    run: PathBuf,
    state: PathBuf,
    uid: u32,
}

/// `client.json`: what a command line needs to reach the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// `http://127.0.0.1:5080`.
    pub url: String,
    /// The API's unix socket.
    pub socket: PathBuf,
    /// The operator's token.
    pub token: String,
    /// Where apps are reached, for people: `http://127.0.0.1:8080`.
    pub router: String,
    /// The daemon's pid.
    pub pid: u32,
}

impl Layout {
    /// The paths that `options` name.
    pub fn new(options: &Options) -> Self {
        Self { run: options.run_dir.clone(), state: options.state_dir.clone(), uid: options.uid }
    }

    /// The run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The runtime's state.
    pub fn runtime(&self) -> PathBuf {
        self.run.join("warden/runtime")
    }

    /// The warden's socket.
    pub fn warden_socket(&self) -> PathBuf {
        self.run.join("warden/sock")
    }

    /// The API's directory.
    pub fn api(&self) -> PathBuf {
        self.run.join("api")
    }

    /// The API's unix socket.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api/api.sock")
    }

    /// What command lines read.
    pub fn client_file(&self) -> PathBuf {
        self.run.join("api/client.json")
    }

    /// The run and the state directory, as far as they are not there: what a start that fails takes away again.
    pub(super) fn missing(&self) -> Vec<PathBuf> {
        [&self.run, &self.state].into_iter().filter(|path| path.symlink_metadata().is_err()).cloned().collect()
    }

    /// The warden's directory, root's.
    pub(super) fn make_warden_dir(&self) -> Result<()> {
        make(&self.run, 0o755, 0)?;
        make(&self.run.join("warden"), 0o711, 0)
    }

    /// The daemon's directories, its user's.
    pub(super) fn make_daemon_dirs(&self) -> Result<()> {
        make(&self.run, 0o755, 0)?;
        make(&self.run.join("api"), 0o700, self.uid)?;
        make(&self.state, 0o700, self.uid)
    }
}

/// What [`Layout::missing`] named, which nobody else can have put anything into.
pub(super) fn remove(made: &[PathBuf]) {
    for path in made {
        if let Err(e) = std::fs::remove_dir_all(path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%e, "{} is left", path.display());
        }
    }
}

/// Makes a directory, or takes an existing one, with this mode and owner. A link in its place is refused.
fn make(path: &Path, mode: u32, uid: u32) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).with_context(|| format!("mkdir {}", path.display()))?;
    let meta = path.symlink_metadata().with_context(|| format!("stat {}", path.display()))?;
    anyhow::ensure!(meta.is_dir(), "{} is not a directory; remove it or choose another", path.display());
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).with_context(|| format!("chown {} to {uid}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).with_context(|| format!("chmod {}", path.display()))
}
