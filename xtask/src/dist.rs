//! `cargo xtask dist`: the static `dyno-runtime`, as it is given to others; and whether it comes out the same wherever it is built.
//!
//! Names of directories are taken out of what the compiler writes (`--remap-path-prefix`); nothing else of the place or the time gets into it. The
//! proof is a second build of a copy of the sources, in a directory, a target directory and a home of cargo's of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{cargo, elf};

/// Where something is built.
struct Place {
    sources: PathBuf,
    target: PathBuf,
    home: PathBuf,
}

/// Builds the static `dyno-runtime`: no library of the host's is needed to run it, and none of a container's can get into it.
///
/// With musl where rustup can have its target: it is executed anew for every call of an engine, and glibc asks the processor for its features at each
/// start, which a hypervisor answers for it (half a millisecond).
pub fn static_runtime() -> Result<PathBuf> {
    build(&Place { sources: cargo::root().to_owned(), target: cargo::target(), home: home()? })
}

/// [`static_runtime`], and with `verify` a second time elsewhere: both must be the same bytes.
pub fn run(verify: bool) -> Result<()> {
    let program = static_runtime()?;
    println!("{}", program.display());
    if !verify {
        return Ok(());
    }
    let elsewhere = cargo::target().join("dist-elsewhere");
    let second = Place { sources: elsewhere.join("sources"), target: elsewhere.join("built"), home: elsewhere.join("home") };
    if elsewhere.exists() {
        fs::remove_dir_all(&elsewhere).with_context(|| format!("remove {}", elsewhere.display()))?;
    }
    copy_sources(&second.sources)?;
    copy_packages(&second.home)?;
    let again = build(&second)?;
    let (one, other) = (fs::read(&program)?, fs::read(&again)?);
    let differs = one.iter().zip(&other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
    ensure!(one == other, "{} and {} differ, first at byte {differs}", program.display(), again.display());
    let hash: String = Sha256::digest(&one).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("dist: two builds, {} bytes, the same: sha256 {hash}", one.len());
    fs::remove_dir_all(&elsewhere).with_context(|| format!("remove {}", elsewhere.display()))
}

fn build(place: &Place) -> Result<PathBuf> {
    let musl = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let has_musl = Command::new("rustup")
        .args(["target", "add", &musl])
        .stderr(Stdio::null())
        .current_dir(cargo::root())
        .status()
        .is_ok_and(|status| status.success());
    let triple = if has_musl { musl } else { format!("{}-unknown-linux-gnu", env::consts::ARCH) };
    if !has_musl {
        eprintln!("xtask: no target {}-unknown-linux-musl: dyno-runtime is built with glibc, and starts later", env::consts::ARCH);
    }
    let mut command = Command::new("cargo");
    command.args(["build", "--locked", "--profile", "dist", "-p", "dyno-runtime", "--bin", "dyno-runtime", "--target", &triple]);
    command.current_dir(&place.sources).env("CARGO_HOME", &place.home).env("CARGO_TARGET_DIR", &place.target);
    // Only for the target: what is built for the build itself (macros) cannot be static.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(place, has_musl).join("\u{1f}")).env_remove("RUSTFLAGS");
    let status = command.status().context("run cargo")?;
    ensure!(status.success(), "{command:?} failed ({status})");
    let program = place.target.join(triple).join("dist/dyno-runtime");
    elf::check(&program, elf::Linked::Statically)?;
    for named in [&place.sources, &place.home] {
        ensure!(!names(&program, named)?, "{} names {}", program.display(), named.display());
    }
    Ok(program)
}

fn flags(place: &Place, has_musl: bool) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![remap(&place.sources, "/dyno"), remap(&place.home, "/cargo"), remap(&place.target, "/target")];
    if !has_musl {
        flags.push("-Ctarget-feature=+crt-static".to_owned());
    }
    flags
}

/// Whether the text stands anywhere in the file.
fn names(program: &Path, path: &Path) -> Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    let (bytes, text) = (fs::read(program)?, path.as_os_str().as_bytes());
    Ok(bytes.windows(text.len()).any(|window| window == text))
}

/// Cargo's own directory.
fn home() -> Result<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(env::home_dir()?.join(".cargo"))).context("neither CARGO_HOME nor HOME is set")
}

/// What git knows, and what is new.
fn copy_sources(to: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(cargo::root())
        .output()
        .context("run git ls-files")?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (cargo::root().join(name), to.join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(|| format!("mkdir for {}", to.display()))?;
            fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(())
}

/// The packages as they were downloaded, not as they were unpacked; and how they are found.
fn copy_packages(to: &Path) -> Result<()> {
    let from = home()?;
    fs::create_dir_all(to.join("registry")).with_context(|| format!("mkdir {}", to.display()))?;
    for part in ["registry/index", "registry/cache", "config.toml", "config"] {
        let source = from.join(part);
        if source.exists() {
            let status = Command::new("cp").arg("-a").arg(&source).arg(to.join(part)).status().context("run cp")?;
            if !status.success() {
                bail!("cp -a {} failed ({status})", source.display());
            }
        }
    }
    Ok(())
}
