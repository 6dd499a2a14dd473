//! The userland and the kernels, made by the recipes of `rootfs/vm` and kept under the hash of their recipe.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::Kernel;
use crate::{cargo, images};

/// Where they are kept; they survive a fresh clone.
const CACHE: &str = "/var/cache/dyno/vm";

/// What one machine boots from.
#[derive(Debug)]
pub struct Machine {
    /// Directory with `vmlinuz`, `initrd`, `modules.ext4`, `version`.
    pub kernel: PathBuf,
    /// The root file system.
    pub userland: PathBuf,
    /// The kernel's release.
    pub version: String,
}

/// Makes what is not cached.
pub fn make(kernels: &[Kernel]) -> Result<Vec<Machine>> {
    let cache = Path::new(CACHE);
    fs::create_dir_all(cache).with_context(|| format!("mkdir {CACHE}"))?;
    // Held until the end of this function: two runs at once would write the same files.
    let lock = fs::File::create(cache.join("lock")).context("create the cache's lock")?;
    lock.lock().context("lock the cache")?;
    let recipes = cargo::root().join("rootfs/vm");
    let userland = cache.join(format!("userland-{}.ext4", key(&recipes.join("userland"))?));
    if !userland.is_file() {
        println!("-----> Making the machine's userland (once, some 2 minutes)");
        carry_out(Command::new(recipes.join("userland/build.sh")).arg(&userland), &userland)?;
    }
    let hash = key(&recipes.join("kernel"))?;
    let mut machines = Vec::new();
    for suite in kernels.iter().map(|k| k.suite()) {
        let kernel = cache.join(format!("kernel-{suite}-{hash}"));
        if !kernel.is_dir() {
            println!("-----> Making the kernel of {suite} (once, below a minute)");
            carry_out(Command::new(recipes.join("kernel/build.sh")).arg(suite).arg(&kernel), &kernel)?;
        }
        let version = fs::read_to_string(kernel.join("version")).with_context(|| format!("read {}/version", kernel.display()))?;
        machines.push(Machine { kernel, userland: userland.clone(), version: version.trim().to_owned() });
    }
    for machine in &machines {
        forget_former(cache, &machine.kernel, &hash)?;
    }
    forget_former(cache, &userland.with_extension(""), &key(&recipes.join("userland"))?)?;
    Ok(machines)
}

/// Removes what earlier recipes made of the same name: `NAME-HASH`, with whatever follows. A machine that runs from it has it open.
fn forget_former(cache: &Path, current: &Path, hash: &str) -> Result<()> {
    let current = current.file_name().unwrap_or_default().to_string_lossy();
    let name = current.strip_suffix(hash).unwrap_or(&current);
    for entry in fs::read_dir(cache).with_context(|| format!("list {}", cache.display()))? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_another = file.strip_prefix(name).is_some_and(|rest| {
            rest.len() >= hash.len() && rest.is_char_boundary(hash.len()) && {
                let other = &rest[..hash.len()];
                other != hash && other.bytes().all(|b| b.is_ascii_hexdigit())
            }
        });
        if of_another {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn key(recipe: &Path) -> Result<String> {
    Ok(images::hash_tree(recipe)?[..16].to_owned())
}

/// Runs a recipe in mount and process namespaces of its own: whatever it mounted or started ends with it, and it ends with us.
fn carry_out(recipe: &Command, output: &Path) -> Result<()> {
    let log = PathBuf::from(format!("{}.log", output.display()));
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork"]);
    // The shell is process 1 in there and has to stay: it must not be replaced by the recipe, which would have to reap orphans.
    command.args(["--kill-child=KILL", "bash", "-c", "log=$1; shift; \"$@\" 2>>\"$log\"; exit $?", "recipe"]);
    command.arg(&log).arg(recipe.get_program()).args(recipe.get_args());
    fs::write(&log, "").with_context(|| format!("create {}", log.display()))?;
    let status = images::follow(&mut command, "vm: ")?;
    ensure!(status.success(), "{:?} failed ({status}); its log is {}", recipe.get_program(), log.display());
    fs::remove_file(&log).with_context(|| format!("remove {}", log.display()))
}
