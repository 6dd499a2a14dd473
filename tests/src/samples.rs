//! Copies of the sample apps, and apps that build in no time.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::inline;

/// A copy of `rootfs/apps/NAME`, as a fresh clone has it: what a deploy leaves in its source must not stay in the tree.
///
/// # Errors
/// Of copying.
pub fn sample(name: &str) -> Result<TempDir> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/apps").join(name);
    let dir = TempDir::new()?;
    copy(&from, dir.path()).with_context(|| format!("copy {}", from.display()))?;
    Ok(dir)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && name != "node_modules" {
            copy(&entry.path(), &to.join(&name))?;
        } else if kind.is_file() && name != ".dyno" {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// An app with this Procfile that compiles nothing and uses the stack's own programs.
///
/// # Errors
/// As [`inline`].
pub fn tiny(procfile: &str, files: &[(&str, &str)]) -> Result<TempDir> {
    let mut all = vec![("Procfile", procfile)];
    all.extend_from_slice(files);
    inline("exit 0", &all)
}
