//! The stack and buildpacks images, cached by the sha256 of everything that they are made from.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::{cargo, host};

/// Where images are kept; they survive a fresh clone.
const CACHE: &str = "/var/cache/dyno/images";

/// Paths of ready images.
#[derive(Debug, Clone)]
pub struct Images {
    /// The Debian base.
    pub stack: PathBuf,
    /// `/buildpacks`.
    pub buildpacks: PathBuf,
}

/// Makes what is not cached.
pub fn make() -> Result<Images> {
    let cache = std::env::var_os("DYNO_IMAGE_CACHE").map_or_else(|| PathBuf::from(CACHE), PathBuf::from);
    fs::create_dir_all(&cache).with_context(|| format!("mkdir {}", cache.display()))?;
    let rootfs = cargo::root().join("rootfs");
    let stack = cache.join(format!("stack-{}.sqsh", &hash_tree(&rootfs.join("stack"))?[..16]));
    if !ready(&stack) {
        build_stack(&rootfs.join("stack/build.sh"), &stack)?;
        fs::write(beside(&stack, "registries"), registries(&stack)?).context("write the list of registries")?;
        seal(&stack)?;
    }
    let buildpacks = cache.join(format!("buildpacks-{}.sqsh", &hash_tree(&rootfs.join("buildpacks"))?[..16]));
    if !ready(&buildpacks) {
        pack(&rootfs.join("buildpacks"), &buildpacks)?;
        seal(&buildpacks)?;
    }
    Ok(Images { stack, buildpacks })
}

/// The hash beside an image is written last, so its presence says that the image is whole.
fn ready(image: &Path) -> bool {
    image.is_file() && beside(image, "sha256").is_file()
}

fn beside(image: &Path, extension: &str) -> PathBuf {
    PathBuf::from(format!("{}.{extension}", image.display()))
}

fn seal(image: &Path) -> Result<()> {
    let path = beside(image, "sha256");
    fs::write(&path, hash_file(image)?).with_context(|| format!("write {}", path.display()))
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hasher)),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Names, modes and contents of a directory, in order.
pub fn hash_tree(dir: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut files = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() { left.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let mode = fs::metadata(&file)?.permissions().mode() & 0o111;
        hasher.update(format!("{} {mode:o} {}\n", file.strip_prefix(dir)?.display(), hash_file(&file)?));
    }
    Ok(hex(hasher))
}

/// Runs the recipe; its `stack: …` lines become the progress display.
fn build_stack(recipe: &Path, output: &Path) -> Result<()> {
    println!("-----> Making the stack image (Debian bookworm with Python, Node.js, Ruby and a compiler; once, some 2 to 4 minutes)");
    let status = follow(Command::new("bash").arg(recipe).arg(output), "stack: ")?;
    ensure!(status.success(), "the stack recipe failed ({status}); its log is {}.log", output.display());
    println!("       {} MB in {}", fs::metadata(output)?.len() >> 20, output.display());
    Ok(())
}

/// Runs a recipe to its end; the lines of its output that begin with `prefix` are its steps.
pub fn follow(recipe: &mut Command, prefix: &str) -> Result<ExitStatus> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("       {spinner} [{elapsed}] {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut child = recipe.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("run the recipe")?;
    let stdout = child.stdout.take().context("its output")?;
    for line in BufReader::new(stdout).lines() {
        let Some(step) = line?.strip_prefix(prefix).map(str::to_owned) else { continue };
        // Without a terminal the bar is silent; CI wants the steps as lines.
        if bar.is_hidden() {
            println!("       {step}");
        }
        bar.set_message(step);
    }
    let status = child.wait()?;
    bar.finish_and_clear();
    Ok(status)
}

/// The list that the stack's own package clients gave while it was made.
fn registries(stack: &Path) -> Result<Vec<u8>> {
    let output = Command::new("unsquashfs").arg("-cat").arg(stack).arg("etc/dyno/registries").output().context("run unsquashfs")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("{}: no etc/dyno/registries inside: {}", stack.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn pack(dir: &Path, output: &Path) -> Result<()> {
    let new = beside(output, "new");
    let mut command = Command::new("mksquashfs");
    command.arg(dir).arg(&new).args(["-keep-as-directory", "-noappend", "-no-progress", "-quiet", "-comp", "zstd"]);
    command.args(["-all-root", "-no-xattrs", "-all-time", "0", "-mkfs-time", "0"]).env_remove("SOURCE_DATE_EPOCH");
    host::quiet(&mut command)?;
    fs::rename(&new, output).with_context(|| format!("rename {}", output.display()))
}
