//! Sources of apps that a suite writes itself.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A directory with these files; those under `bin/` are executable.
///
/// # Errors
/// Of writing them.
pub fn source(files: &[(&str, &str)]) -> Result<TempDir> {
    let dir = TempDir::new()?;
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        if name.starts_with("bin/") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(dir)
}

/// As [`source`], for an app that is its own buildpack: `compile` is a shell script, run in the build dyno.
///
/// # Errors
/// As [`source`].
pub fn inline(compile: &str, files: &[(&str, &str)]) -> Result<TempDir> {
    let script = format!("#!/bin/bash\n{compile}\n");
    let mut all = vec![("bin/detect", "#!/bin/sh\necho Inline\n"), ("bin/compile", script.as_str())];
    all.extend_from_slice(files);
    source(&all)
}

/// A Python program that answers on `$PORT` with its dyno's name: `/say/TEXT` prints, `/flood/N` prints N lines, `/exit/N` ends it.
pub const WEB: &str = include_str!("web.py");
