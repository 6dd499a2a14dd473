//! The platform's own images and what lies beside them: `FILE.sha256`, and for the stack `FILE.registries`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build::Image;

/// An image with the hash that was written when it was made. The warden checks it before the first mount.
pub(super) fn image(path: &Path) -> Result<Image> {
    let hint = "make it with `cargo xtask stack`, or name one with --stack and --buildpacks";
    ensure!(path.is_file(), "there is no image {}; {hint}", path.display());
    let beside = beside(path, "sha256");
    let text = std::fs::read_to_string(&beside).with_context(|| format!("read {}; {hint}", beside.display()))?;
    let sha256 = text.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(sha256.len() == 64, "{} does not hold a sha256; {hint}", beside.display());
    let path = path.canonicalize().with_context(|| format!("realpath {}", path.display()))?;
    Ok(Image { path, sha256 })
}

/// The hosts that the package clients of the stack call their registries.
pub(super) fn registries(stack: &Path) -> Result<Vec<String>> {
    let beside = beside(stack, "registries");
    let text = std::fs::read_to_string(&beside).with_context(|| format!("read {}", beside.display()))?;
    Ok(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
