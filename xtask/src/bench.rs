//! `cargo xtask bench`: builds what is measured and its meter, installs the peers, measures.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{cargo, host};

/// Peers, by package and program.
const PEERS: [(&str, &str); 3] = [("crun", "crun"), ("runc", "runc"), ("bubblewrap", "bwrap")];

/// What is measured.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// `run` and `exec` of a do-nothing container, beside crun, runc and bubblewrap.
    Oci {
        /// Fail unless the goals are met.
        #[arg(long)]
        check: bool,
        /// Rounds.
        #[arg(long, default_value_t = 100)]
        rounds: usize,
    },
}

/// Runs it.
pub fn run(what: &Bench) -> Result<()> {
    let Bench::Oci { check, rounds } = what;
    host::prepare()?;
    host::install(&PEERS)?;
    let runtime = cargo::static_runtime()?;
    cargo::run(Command::new("cargo").args(["build", "--release", "-p", "dyno-bench"]))?;
    let meter = cargo::target().join("release/dyno-bench");
    // Debian's crun refuses v1 controllers beside a v2 tree that has one too: all peers are measured without sight of that tree.
    let hide = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(&meter).arg("oci").arg("--runtime").arg(&runtime);
    command.arg("--rounds").arg(rounds.to_string()).arg("--json").arg(report());
    if *check {
        command.arg("--check");
    }
    cargo::run(&mut command)
}

fn report() -> PathBuf {
    cargo::target().join("bench-oci.json")
}
