//! Opening an instance as a user who is not root, and what can be asked of it.

use std::path::Path;

use super::{Rootless, RootlessOptions};
use crate::{
    cgroup::Cgroups,
    error::{Context, Result},
    host::Host,
    plan::Plan,
    spec::{Missing, Sandbox},
    workshop::Stock,
};

impl Host {
    /// Opens (or creates) an instance for the calling user, root or not, in a directory of its own on a file system that a reboot
    /// empties (`$XDG_RUNTIME_DIR/…`). Walls that the kernel does not grant it must be named in [`RootlessOptions::without`].
    ///
    /// The process must be dumpable (prctl(2), PR_SET_DUMPABLE), as it is unless it has changed its user id. Files of layers and
    /// volumes keep their owners: the caller's show as root's, or with [`crate::Wall::IdRange`] missing as the sandbox's
    /// own; those of others as nobody's, and what is nobody's cannot be changed in the writable layer either (EOVERFLOW).
    ///
    /// # Errors
    /// [`crate::ErrorKind::Wall`] naming each wall that is missing, why, and how to get it; or what forbids user namespaces here.
    pub fn open_rootless(dir: &Path, name: &str, options: &RootlessOptions) -> Result<Self> {
        crate::host::has_needed_calls()?;
        let fresh = !dir.exists();
        std::fs::create_dir_all(dir).io(|| format!("mkdir({})", dir.display()))?;
        let opened = Self::furnish_rootless(dir, name, options);
        if opened.is_err()
            && fresh
            && let Err(e) = std::fs::remove_dir_all(dir)
        {
            tracing::warn!(%e, "a failed start left its directory");
        }
        opened
    }

    fn furnish_rootless(dir: &Path, name: &str, options: &RootlessOptions) -> Result<Self> {
        rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o700)).io(|| format!("chmod({}, 0700)", dir.display()))?;
        let dir = dir.canonicalize().io(|| format!("realpath({})", dir.display()))?;
        for sub in ["dynos", "root"] {
            std::fs::create_dir_all(dir.join(sub)).io(|| format!("mkdir({}/{sub})", dir.display()))?;
        }
        let (cgroups, lacking) = Cgroups::granted(name, options.alone)?;
        let opened = Rootless::find(options, &dir.join("root"), lacking).and_then(|rootless| Ok((rootless.leases(&dir)?, rootless)));
        match opened {
            Ok((leases, rootless)) => Self::with(&dir, leases, Some(rootless), Stock::default(), || Ok(cgroups)),
            Err(e) => {
                if let Some(Err(e)) = cgroups.as_ref().map(Cgroups::remove) {
                    tracing::debug!(%e, "cgroups of an earlier start stay");
                }
                Err(e)
            }
        }
    }

    /// The walls that the kernel does not grant this instance's user, accepted or not asked for. Empty for root's.
    pub fn missing(&self) -> &[Missing] {
        self.rootless().map_or(&[], Rootless::missing)
    }

    /// What [`Self::start`] would carry out here: the validated sandbox, and the walls that it does without.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a bad description, [`crate::ErrorKind::Wall`] naming walls that it cannot have and that were not accepted.
    pub fn plan(&self, sandbox: &Sandbox) -> Result<Plan> {
        let mut plan = Plan::new(sandbox)?;
        self.fit(&mut plan, false)?;
        Ok(plan)
    }

    /// Makes `plan` what can be carried out here.
    pub(crate) fn fit(&self, plan: &mut Plan, keep_upper: bool) -> Result<()> {
        self.rootless().map_or(Ok(()), |rootless| rootless.fit(plan, keep_upper))
    }
}
