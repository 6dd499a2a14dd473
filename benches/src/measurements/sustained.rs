//! Starts per second, each ended and given back before the next: what can be kept up, not what a burst shows.

use anyhow::Result;

use crate::{
    agent::{Agent, Request, Tier},
    peers::{name, setup},
    whole::Bench,
};

/// Name of the table.
pub const TABLE: &str = "sustained";

/// Who starts.
pub const THREADS: [usize; 2] = [1, 2];

/// How long each is kept up.
const SECONDS: u64 = 10;

/// Condition of a number.
pub fn condition(threads: usize) -> String {
    if threads == 1 { "by 1 thread".to_owned() } else { format!("by {threads} threads") }
}

/// Measures each tier.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::RECYCLED, Tier::Recycled), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        if let Err(e) = tier_of(bench, subject, tier) {
            bench.failed(&format!("sustained: {subject}"), &e);
        }
    }
    Ok(())
}

fn tier_of(bench: &mut Bench, subject: &str, tier: Tier) -> Result<()> {
    let mut agent = Agent::start(&setup(&bench.stage, tier, "sustained"), 0)?;
    for threads in THREADS {
        bench.tell(&format!("sustained: {subject}, {threads} threads"));
        bench.settle();
        let rate = agent.number(&Request::Sustain { threads, seconds: bench.seconds(SECONDS) })?;
        bench.figures.note(TABLE, subject, &condition(threads), rate);
    }
    agent.finish()
}
