//! From the request to the exec and to the collected exit: everybody, in turns, in a burst and after idleness. What each looks like
//! from inside is asked as well, so that nobody is praised for a wall that was not raised.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    peers::{self, Entry, Peer},
    sample::Sample,
    whole::Bench,
};

/// Name of the table.
pub const TABLE: &str = "latency";

/// Runs right after each other.
pub const BURST: &str = "burst";

/// Each after a rest.
pub const IDLE: &str = "after 30 ms";

/// The rest.
pub const REST: Duration = Duration::from_millis(30);

/// Runs of the quick ones, per condition.
const RUNS: usize = 300;

struct Turns {
    entry: &'static Entry,
    peer: Box<dyn Peer>,
    /// Turns to take and taken.
    due: usize,
    taken: usize,
    burst: Vec<Sample>,
    idle: Vec<Sample>,
}

impl Turns {
    fn take(&mut self, bench: &mut Bench) -> Result<()> {
        bench.settle();
        self.burst.extend(self.peer.turn(self.entry.turn, Duration::ZERO)?);
        bench.settle();
        self.idle.extend(self.peer.turn(self.entry.turn, REST)?);
        self.taken += 1;
        Ok(())
    }
}

/// Measures all peers.
pub fn measure(bench: &mut Bench) -> Result<()> {
    bench.figures.outside = crate::stage::run(&mut std::process::Command::new(bench.stage.root().join("probe")))?;
    let mut all = open(bench);
    let rounds = all.iter().map(|t| t.due).max().context("no peer could be opened")?;
    for round in 1..=rounds {
        bench.tell(&format!("latency: round {round} of {rounds}"));
        // Who has fewer turns takes them spread over the rounds.
        all = all
            .into_iter()
            .filter_map(|mut turns| {
                while turns.taken * rounds < turns.due * round {
                    if let Err(e) = turns.take(bench) {
                        bench.failed(&format!("{}, after {} runs", turns.entry.name, turns.burst.len() + turns.idle.len()), &e);
                        close(bench, turns);
                        return None;
                    }
                }
                Some(turns)
            })
            .collect();
    }
    all.into_iter().for_each(|turns| close(bench, turns));
    Ok(())
}

/// What was measured counts, even of one that failed later; that is told as well.
fn close(bench: &mut Bench, turns: Turns) {
    for (condition, samples) in [(BURST, &turns.burst), (IDLE, &turns.idle)] {
        if !samples.is_empty() {
            bench.figures.add(TABLE, turns.entry.name, condition, samples);
        }
    }
    if let Err(e) = turns.peer.finish() {
        bench.failed(turns.entry.name, &e);
    }
}

fn open(bench: &mut Bench) -> Vec<Turns> {
    let wanted = |entry: &&Entry| bench.options.peers.is_empty() || bench.options.peers.iter().any(|part| entry.name.contains(part.as_str()));
    let entries: Vec<&'static Entry> = peers::ALL.iter().filter(wanted).collect();
    let mut all = Vec::new();
    for entry in entries {
        bench.tell(&format!("latency: setting up {}", entry.name));
        match ready(bench, entry) {
            Ok(turns) => all.push(turns),
            Err(e) => bench.failed(entry.name, &e),
        }
    }
    all
}

fn ready(bench: &mut Bench, entry: &'static Entry) -> Result<Turns> {
    let mut peer = (entry.open)(&bench.stage)?;
    if let Some(text) = peer.probe()? {
        bench.figures.probes.push((entry.name.to_owned(), text));
    }
    // The first run of anything reads its files.
    peer.turn(2, Duration::ZERO)?;
    let runs = bench.runs(RUNS) * entry.share / 100;
    Ok(Turns { entry, peer, due: runs.div_ceil(entry.turn).max(1), taken: 0, burst: Vec::new(), idle: Vec::new() })
}
