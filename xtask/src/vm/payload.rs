//! The read-only disk that a machine is handed: scripts, programs, images, and the plan of what to run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::items::Item;
use crate::{
    cargo::{self, Programs},
    host,
    images::Images,
};

/// A packed payload.
#[derive(Debug)]
pub struct Payload {
    /// The disk.
    pub image: PathBuf,
    /// Where the machines' output is kept.
    pub logs: PathBuf,
}

impl Drop for Payload {
    fn drop(&mut self) {
        // Some hundred megabytes that the next run makes anew; a disk that cannot be removed is no result of a test.
        drop(fs::remove_file(&self.image));
    }
}

/// Gathers everything below the target directory and packs it.
pub fn pack(programs: &Programs, images: &Images, items: &[Item]) -> Result<Payload> {
    let logs = cargo::target().join("vm");
    let tree = logs.join("payload");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))?;
    }
    place(&programs.dynod, &tree.join("bin/dynod"))?;
    place(&programs.dyno, &tree.join("bin/dyno"))?;
    for image in [&images.stack, &images.buildpacks] {
        for file in with_side_files(image)? {
            place(&file, &tree.join("images").join(file.file_name().unwrap_or_default()))?;
        }
    }
    let root = cargo::root();
    for part in ["rootfs/apps", "dyno-runtime"] {
        copy_tree(&root.join(part), &tree.join("source").join(part))?;
    }
    copy_tree(&root.join("rootfs/vm/run"), &tree.join("run"))?;
    fs::create_dir_all(tree.join("target")).context("mkdir target")?;
    for program in items.iter().flat_map(|i| &i.programs) {
        place(&cargo::target().join(program), &tree.join("target").join(program))?;
    }
    fs::write(tree.join("run/env"), environment(images)).context("write run/env")?;
    fs::write(tree.join("run/plan"), plan(items)).context("write run/plan")?;
    let image = logs.join("payload.ext4");
    make_disk(&tree, &image)?;
    fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))?;
    Ok(Payload { image, logs })
}

/// A hard link where that is possible, else a copy: nothing of this is written to.
fn place(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).with_context(|| format!("mkdir for {}", to.display()))?;
    if to.exists() || fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("mkdir {}", to.display()))?;
    host::quiet(Command::new("cp").arg("-a").arg("--").arg(from.join(".")).arg(to))
}

/// An image and the files beside it whose names begin with its own.
fn with_side_files(image: &Path) -> Result<Vec<PathBuf>> {
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = image.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name))).collect();
    ensure!(!files.is_empty(), "{} is gone", image.display());
    Ok(files)
}

fn environment(images: &Images) -> String {
    let inside = |image: &Path| format!("/payload/images/{}", image.file_name().unwrap_or_default().to_string_lossy());
    format!(
        "export VM_SOURCE='{}' VM_TARGET='{}' DYNO_STACK='{}' DYNO_BUILDPACKS='{}'\n\
         export DYNO_BIN_DYNOD=/payload/bin/dynod DYNO_BIN_DYNO=/payload/bin/dyno DYNO_TEST_EMULATED=1 DYNO_TEST_STARTS=50\n",
        cargo::root().display(),
        cargo::target().display(),
        inside(&images.stack),
        inside(&images.buildpacks)
    )
}

fn plan(items: &[Item]) -> String {
    items.iter().map(|i| format!("{} {} {} {}\n", i.suite.name(), i.name, i.seconds, i.command)).collect()
}

/// Files' sizes and a quarter more; the disk's file is sparse.
fn make_disk(tree: &Path, image: &Path) -> Result<()> {
    let mut used = 0;
    let mut left = vec![tree.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            used += meta.len().max(4096);
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    let size = format!("{}M", (used >> 20) * 5 / 4 + 64);
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-L", "payload", "-m", "0", "-O", "^has_journal", "-d"]).arg(tree).arg(image).arg(size);
    host::quiet(&mut command).with_context(|| format!("make {}", image.display()))
}
