//! What must not matter: two thousand mounts on the host, and the size of the process that starts.

use std::time::Duration;

use anyhow::Result;

use super::{BURST, IDLE, REST};
use crate::{
    agent::{Agent, Ballast, Run, Setup, TURN, Tier},
    peers::{name, setup},
    whole::Bench,
};

/// Name of the table.
pub const TABLE: &str = "surroundings";

/// Without and with.
pub const SMALL: &str = "small process, few mounts";
/// With many mounts.
pub const MOUNTS: &str = "2000 mounts more";
/// A large process.
pub const LARGE: &str = "4 GB, 100 threads, 5000 files";

/// Runs of each.
const RUNS: usize = 200;

/// Condition of a cell.
pub fn condition(around: &str, idle: bool) -> String {
    format!("{around}, {}", if idle { IDLE } else { BURST })
}

/// Measures each tier under each of the three, in turns.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        bench.tell(&format!("surroundings: {subject}"));
        if let Err(e) = tier_of(bench, subject, tier) {
            bench.failed(&format!("surroundings: {subject}"), &e);
        }
    }
    Ok(())
}

fn tier_of(bench: &mut Bench, subject: &str, tier: Tier) -> Result<()> {
    let setup = |label| setup(&bench.stage, tier, label);
    let large = Setup { ballast: Ballast::LARGE, ..setup("large") };
    let mut agents = [(SMALL, Agent::start(&setup("small"), 0)?), (MOUNTS, Agent::start(&setup("mounts"), 2000)?), (LARGE, Agent::start(&large, 0)?)];
    for (idle, rest) in [(false, Duration::ZERO), (true, REST)] {
        let mut runs: [Vec<Run>; 3] = Default::default();
        for _ in 0..bench.runs(RUNS).div_ceil(TURN) {
            for ((_, agent), runs) in agents.iter_mut().zip(&mut runs) {
                bench.settle();
                runs.extend(agent.run(TURN, rest, 1)?);
            }
        }
        for ((around, _), runs) in agents.iter().zip(&runs) {
            bench.figures.add_runs(TABLE, subject, &condition(around, idle), runs);
        }
    }
    agents.into_iter().try_for_each(|(_, agent)| agent.finish())
}
