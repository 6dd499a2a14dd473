//! From the kill to the observed exit; and where the time of a start goes, by the library's own clock.

use std::time::Duration;

use anyhow::Result;

use super::{BURST, IDLE, REST};
use crate::{
    agent::{Agent, Phases, Request, Tier},
    peers::{name, setup},
    whole::Bench,
};

/// Name of the table: exec is the exit, end is that and everything given back.
pub const TABLE: &str = "stop";

/// Numbers: medians of the phases.
pub const PHASES: &str = "phases";

/// In the order in which they come.
pub const NAMES: [&str; 5] = ["prepare", "walls", "exec", "end", "free"];

/// Runs of each.
const RUNS: usize = 200;

/// Measures each tier.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        bench.tell(&format!("stop: {subject}"));
        if let Err(e) = tier_of(bench, subject, tier) {
            bench.failed(&format!("stop: {subject}"), &e);
        }
    }
    Ok(())
}

fn tier_of(bench: &mut Bench, subject: &str, tier: Tier) -> Result<()> {
    let mut agent = Agent::start(&setup(&bench.stage, tier, "stop"), 0)?;
    let runs = bench.runs(RUNS);
    for (condition, rest) in [(BURST, Duration::ZERO), (IDLE, REST)] {
        let idle_us = rest.as_micros() as u64;
        bench.settle();
        let stops = agent.samples(&Request::Stop { runs, idle_us })?;
        bench.figures.add_runs(TABLE, subject, condition, &stops);
        bench.settle();
        let phases: Vec<Phases> = agent.run(runs, rest, 1)?.into_iter().map(|run| run.phases).collect();
        for (at, phase) in NAMES.iter().enumerate() {
            let value = median(phases.iter().map(|p| [p.prepare, p.walls, p.exec, p.end, p.free][at]).collect());
            bench.figures.note(PHASES, subject, &format!("{phase}, {condition}"), value);
        }
    }
    agent.finish()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
