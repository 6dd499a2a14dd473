//! An image archive as `docker save` writes it, made without any client: one layer, the root file system of a [`Desk`].

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Desk;
use crate::Said;

impl Desk {
    /// Writes `NAME.tar` with an image called `reference` whose command is `command`.
    ///
    /// # Errors
    /// Of tar and sha256sum.
    pub fn image(&self, name: &str, reference: &str, command: &[&str]) -> Result<PathBuf> {
        let layer = self.archive()?;
        let summed = Said::of(Command::new("sha256sum").arg(&layer).output()?)?;
        let digest = summed.stdout.split(' ').next().filter(|digest| digest.len() == 64).with_context(|| format!("{summed:?}"))?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin", "WHO=image"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}, "history": [{"created_by": "a test"}]});
        let dir = self.path(&format!("image-{name}"));
        fs::create_dir(&dir)?;
        fs::rename(&layer, dir.join("layer.tar"))?;
        fs::write(dir.join("config.json"), config.to_string())?;
        fs::write(dir.join("manifest.json"), json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]).to_string())?;
        let image = self.path(&format!("{name}.tar"));
        let said =
            Said::of(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&image).args(["manifest.json", "config.json", "layer.tar"]).output()?)?;
        ensure!(said.status == 0, "tar: {said:?}");
        fs::remove_dir_all(dir)?;
        Ok(image)
    }
}
