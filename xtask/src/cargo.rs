//! Where the repository is, and building its programs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The programs of the platform.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub dynod: PathBuf,
    /// The command line.
    pub dyno: PathBuf,
    /// The runtime, as engines call it.
    pub runtime: PathBuf,
}

/// Builds the programs; cargo shows its own progress.
pub fn build() -> Result<Programs> {
    run(Command::new("cargo").args(["build", "-p", "dyno-manager", "-p", "dyno-runtime"]))?;
    let bin = target().join("debug");
    Ok(Programs { dynod: bin.join("dynod"), dyno: bin.join("dyno"), runtime: bin.join("dyno-runtime") })
}

/// Builds the static `dyno-runtime`: no library of the host's is needed to run it, and none of a container's can get into it.
///
/// With musl where rustup can have its target: it is executed anew for every call of an engine, and glibc asks the processor for its features at each
/// start, which a hypervisor answers for it (half a millisecond).
pub fn static_runtime() -> Result<PathBuf> {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let has_musl = Command::new("rustup").args(["target", "add", &musl]).stderr(Stdio::null()).current_dir(root()).status().is_ok_and(|status| status.success());
    let triple = if has_musl { musl } else { format!("{}-unknown-linux-gnu", std::env::consts::ARCH) };
    if !has_musl {
        eprintln!("xtask: no target {}-unknown-linux-musl: dyno-runtime is built with glibc, and starts later", std::env::consts::ARCH);
    }
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", "dist", "-p", "dyno-runtime", "--bin", "dyno-runtime", "--target", &triple]);
    if !has_musl {
        // Only for the target: what is built for the build itself (macros) cannot be static.
        command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    run(&mut command)?;
    Ok(target().join(triple).join("dist/dyno-runtime"))
}

/// Runs a command in the repository, its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
