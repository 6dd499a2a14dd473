//! `cargo xtask battery`: the attacks on a sandbox, with the parts of the runtime in it that can be left out.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, host};

/// What builds the test program; its own features, and not the binaries, which are not to have them.
pub const BUILD: [&str; 8] = ["test", "-p", "dyno-runtime", "--no-default-features", "--features", "break-walls", "--test", "battery"];

/// Which runs.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Take every wall and every rule of the filter away in turn: some row must see it.
    #[arg(long)]
    mutate: bool,
    /// Write docs/battery.md, mutations and all.
    #[arg(long)]
    write: bool,
    /// Only rows whose name holds this.
    #[arg(conflicts_with_all = ["write", "mutate"])]
    row: Option<String>,
}

/// Builds and runs it; the results are in `battery.json` below the target directory.
pub fn run(options: &Options) -> Result<()> {
    host::prepare()?;
    let mut command = Command::new("cargo");
    command.args(BUILD).arg("--").args(&options.row);
    command.env("DYNO_BATTERY_JSON", cargo::target().join("battery.json"));
    if options.mutate || options.write {
        command.env("DYNO_BATTERY_MUTATE", "all");
    }
    if options.write {
        command.env("DYNO_BATTERY_PAGE", cargo::root().join("docs/battery.md"));
    }
    cargo::run(&mut command)
}
