//! Where the repository is, and building its programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::elf;

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

/// Builds the programs, linked as they should be; cargo shows its own progress.
pub fn build() -> Result<Programs> {
    run(Command::new("cargo").args(["build", "-p", "dyno-manager", "-p", "dyno-runtime"]))?;
    let bin = target().join("debug");
    let programs = Programs { dynod: bin.join("dynod"), dyno: bin.join("dyno"), runtime: bin.join("dyno-runtime") };
    for program in [&programs.dynod, &programs.dyno, &programs.runtime] {
        elf::check(program, elf::Linked::Dynamically)?;
    }
    Ok(programs)
}

/// Runs a command in the repository, its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
