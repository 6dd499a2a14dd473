//! `dyno-bench`: what the platform's programs cost beside their peers, measured in turns in one run, told as ratios.
//!
//! `cargo xtask bench` builds what it needs and calls it. Lone numbers say more of the host than of a program; so the peers take turns, round
//! by round, and every table has a column that is 1.

mod agent;
mod bundle;
mod control_groups;
mod figures;
mod machine;
mod measure;
mod measurements;
mod null_device;
mod oci;
mod peers;
mod platform;
mod quiet;
mod report;
mod sample;
mod soak;
mod stage;
mod whole;

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
    /// Starts by the library beside every peer, under every condition, and a report.
    All(whole::Options),
    /// The report again, from its figures.
    Report {
        /// `figures.json`.
        json: PathBuf,
        /// As of `all`.
        #[arg(long)]
        out: PathBuf,
    },
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
    /// Starts and ends for ten minutes, and what they leave.
    Soak(soak::Options),
    /// A process that starts dynos when it is asked to (for `all`).
    #[command(hide = true)]
    Agent {
        /// Mounts to be made first.
        #[arg(long)]
        mounts: usize,
        /// JSON.
        setup: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::All(options) => whole::run(options),
        What::Report { json, out } => whole::report_again(&json, &out),
        What::Agent { mounts, setup } => serde_json::from_str(&setup).map_err(Into::into).and_then(|setup| agent::serve(&setup, mounts)),
        What::Oci { runtime, rounds, json, check } => oci::run(&runtime, rounds, json.as_deref(), check),
        What::Platform(options) => platform::run(&options),
        What::Soak(options) => soak::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dyno-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
