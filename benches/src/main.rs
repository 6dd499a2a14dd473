//! `dyno-bench`: what the platform's programs cost beside their peers, measured in turns in one run, told as ratios.
//!
//! `cargo xtask bench` builds what it needs and calls it. Lone numbers say more of the host than of a program; so the peers take turns, round
//! by round, and every table has a column that is 1.

mod bundle;
mod measure;
mod oci;
mod platform;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "dyno-bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// `run` and `exec` of a do-nothing container by OCI runtimes and bubblewrap.
    Oci {
        /// The runtime to be measured.
        #[arg(long)]
        runtime: PathBuf,
        /// Rounds; in each every peer has its turn.
        #[arg(long, default_value_t = 100)]
        rounds: usize,
        /// Where the figures go as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Fail unless the goals are met.
        #[arg(long)]
        check: bool,
    },
    /// A running platform: a hundred dynos, the wake of an app that sleeps, what the router adds.
    Platform(platform::Options),
    /// Tells the peak memory of a command in KiB (for `oci`).
    #[command(hide = true)]
    Peak {
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::Oci { runtime, rounds, json, check } => oci::run(&runtime, rounds, json.as_deref(), check),
        What::Platform(options) => platform::run(&options),
        What::Peak { command } => measure::print_peak(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dyno-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
