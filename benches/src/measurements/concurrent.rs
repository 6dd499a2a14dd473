//! Several starts at once, on as many processors as there are: each waits for the others' locks in the kernel, and for its turn.

use std::{thread::scope, time::Duration};

use anyhow::{Result, anyhow};

use super::{BURST, IDLE, REST};
use crate::{
    agent::{Agent, Tier},
    peers::{ALL, Peer, name, setup},
    sample::Sample,
    whole::Bench,
};

/// Name of the table.
pub const TABLE: &str = "concurrent";

/// How many at once.
pub const AT_ONCE: [usize; 3] = [1, 2, 8];

/// Runs of all threads together.
const RUNS: usize = 240;

/// Condition of a cell.
pub fn condition(threads: usize, idle: bool) -> String {
    format!("{threads} at once, {}", if idle { IDLE } else { BURST })
}

/// Measures ours, the floor and crun.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        if let Err(e) = ours(bench, subject, tier) {
            bench.failed(&format!("concurrent: {subject}"), &e);
        }
    }
    for (subject, share) in [(name::FLOOR, 1), (name::CRUN, 3)] {
        if let Err(e) = others(bench, subject, share) {
            bench.failed(&format!("concurrent: {subject}"), &e);
        }
    }
    Ok(())
}

fn ours(bench: &mut Bench, subject: &str, tier: Tier) -> Result<()> {
    let mut agent = Agent::start(&setup(&bench.stage, tier, "concurrent"), 0)?;
    for threads in AT_ONCE {
        bench.tell(&format!("concurrent: {subject}, {threads} at once"));
        for (idle, rest) in [(false, Duration::ZERO), (true, REST)] {
            bench.settle();
            let runs = agent.run((bench.runs(RUNS) / threads).max(1), rest, threads)?;
            bench.figures.add_runs(TABLE, subject, &condition(threads, idle), &runs);
        }
    }
    agent.finish()
}

fn others(bench: &mut Bench, subject: &str, share: usize) -> Result<()> {
    let entry = ALL.iter().find(|e| e.name == subject).ok_or_else(|| anyhow!("no peer {subject}"))?;
    for threads in AT_ONCE {
        bench.tell(&format!("concurrent: {subject}, {threads} at once"));
        let mut peers = (0..threads).map(|_| (entry.open)(&bench.stage)).collect::<Result<Vec<_>>>()?;
        for (idle, rest) in [(false, Duration::ZERO), (true, REST)] {
            let runs = (bench.runs(RUNS) / threads / share).max(1);
            bench.settle();
            let samples = at_once(&mut peers, runs, rest)?;
            bench.figures.add(TABLE, subject, &condition(threads, idle), &samples);
        }
        peers.into_iter().try_for_each(Peer::finish)?;
    }
    Ok(())
}

fn at_once(peers: &mut [Box<dyn Peer>], runs: usize, rest: Duration) -> Result<Vec<Sample>> {
    let all = scope(|s| {
        let turns: Vec<_> = peers.iter_mut().map(|peer| s.spawn(move || peer.turn(runs, rest))).collect();
        turns.into_iter().map(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?).collect::<Result<Vec<_>>>()
    })?;
    Ok(all.concat())
}
