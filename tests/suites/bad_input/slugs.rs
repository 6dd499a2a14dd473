//! Slugs that are not what the release says: R17, for this app alone.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{Platform, inline, until};

use super::{STEADY, unharmed};

/// An app that was built and never ran, so that its slug is not mounted; the slug's file.
fn built(platform: &Platform, app: &str) -> Result<PathBuf> {
    let slugs = || -> Result<Vec<PathBuf>> { Ok(fs::read_dir(platform.state().join("slugs"))?.filter_map(|e| Some(e.ok()?.path())).collect()) };
    let before = slugs()?;
    let source = inline("true", &[("Procfile", "worker: echo works; exec sleep 100000\n"), ("name", app)])?;
    platform.deploy(app, source.path())?;
    slugs()?.into_iter().find(|path| !before.contains(path)).context("no new slug")
}

/// Damages the slug with `damage`, tries to run it, mends it with the former bytes and runs it.
fn refused(platform: &Platform, app: &str, damage: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    unharmed(platform, || {
        let slug = built(platform, app)?;
        let bytes = fs::read(&slug)?;
        damage(&slug)?;
        platform.ok(&["ps:scale", "worker=1", "-a", app])?;
        let line = platform.await_log(app, "heroku[worker.1]: Error R17 (Checksum error) -> ", 10)?;
        ensure!(line.contains(&*slug.to_string_lossy()), "it does not say which file: {line}");
        platform.await_log(app, "heroku[worker.1]: Next try in ", 10)?;
        let said = platform.try_dyno(&["run", "-a", app, "true"])?;
        ensure!(said.status != 0, "a one-off ran on it: {said:?}");
        ensure!(platform.get(STEADY, "/")?.starts_with("HTTP/1.1 200"), "another app stopped answering");

        fs::write(&slug, &bytes)?;
        platform.ok(&["ps:restart", "-a", app])?;
        platform.await_log(app, "app[worker.1]: works", 20)?;
        platform.wait_up(app)?;
        platform.ok(&["apps:destroy", "-a", app, "--confirm", app])?;
        until(10, "its slug is removed with it", || Ok((!slug.exists()).then_some(())))
    })
}

pub(super) fn corrupt(platform: &Platform) -> Result<()> {
    refused(platform, "corrupt", |slug| {
        let file = fs::OpenOptions::new().read(true).write(true).open(slug)?;
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        Ok(file.write_all_at(&[byte[0] ^ 1], middle)?)
    })
}

/// A whole and working slug under the name of another.
pub(super) fn swapped(platform: &Platform) -> Result<()> {
    refused(platform, "swapped", |slug| {
        let others = fs::read_dir(platform.state().join("slugs"))?.filter_map(|e| Some(e.ok()?.path()));
        let other = others.filter(|path| path != slug).last().context("no other slug")?;
        Ok(fs::copy(other, slug).map(drop)?)
    })
}

pub(super) fn missing(platform: &Platform) -> Result<()> {
    refused(platform, "missing", |slug| Ok(fs::remove_file(slug)?))
}
