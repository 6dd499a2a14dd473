//! What every verb needs: the options before it.

use std::path::PathBuf;

use super::{cgroup::Manager, log::Log};

/// The options before the verb.
#[derive(Debug)]
pub struct Global {
    /// Where containers have their directories; absolute.
    pub root: PathBuf,
    /// `--log`, `--log-format`, `--debug`.
    pub log: Log,
    /// Who makes control groups.
    pub manager: Manager,
    /// `--rootless`; None is `auto`.
    pub rootless: Option<bool>,
    /// For `checkpoint` and `restore`.
    pub criu: PathBuf,
}

impl Global {
    /// Whether control groups that we may not make are done without: unless told otherwise, for whoever is not the host's root.
    pub fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(|| !rustix::process::geteuid().is_root() || in_user_namespace())
    }
}

/// Whether we are not in the first user namespace: that one has every id.
pub(super) fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}
