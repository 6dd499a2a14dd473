//! What a start costs while others are alive, and what an idle dyno costs the host in memory.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use super::{BURST, IDLE, REST};
use crate::{
    agent::{Agent, Request, Tier},
    peers::{name, setup},
    whole::Bench,
};

/// Name of the table.
pub const TABLE: &str = "alive";

/// How many live while one more is started.
pub const ALIVE: [usize; 5] = [0, 100, 250, 500, 1000];

/// Numbers: host memory per idle dyno.
pub const MEMORY: &str = "memory";

/// What is told of it, in KB.
pub const HOST: &str = "host, KB";

/// Runs at each count.
const RUNS: usize = 150;

/// Condition of a cell.
pub fn condition(alive: usize, idle: bool) -> String {
    format!("{alive} alive, {}", if idle { IDLE } else { BURST })
}

/// Measures each tier.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        if let Err(e) = tier_of(bench, subject, tier) {
            bench.failed(&format!("alive: {subject}"), &e);
        }
    }
    Ok(())
}

fn tier_of(bench: &mut Bench, subject: &str, tier: Tier) -> Result<()> {
    let mut agent = Agent::start(&setup(&bench.stage, tier, "alive"), 0)?;
    // What the first start fills, and what stands ready, is no idle dyno's.
    agent.run(5, Duration::ZERO, 1)?;
    let empty = Memory::now()?;
    for alive in ALIVE {
        if bench.options.quick && alive > 100 {
            continue;
        }
        bench.tell(&format!("alive: {subject}, {alive} others"));
        agent.ask(&Request::Alive { count: alive })?;
        if tier == Tier::Cold && alive > 0 {
            memory(bench, &mut agent, alive, &empty)?;
        }
        for (idle, rest) in [(false, Duration::ZERO), (true, REST)] {
            bench.settle();
            let runs = agent.run(bench.runs(RUNS), rest, 1)?;
            bench.figures.add_runs(TABLE, subject, &condition(alive, idle), &runs);
        }
    }
    agent.finish()
}

/// What the host has less, per dyno, and where it went.
fn memory(bench: &mut Bench, agent: &mut Agent, alive: usize, empty: &Memory) -> Result<()> {
    let (now, charged) = (Memory::now()?, agent.number(&Request::Charged)?);
    let subject = format!("{alive} idle");
    let each = |now: f64, before: f64| (now - before) / alive as f64;
    bench.figures.note(MEMORY, &subject, HOST, each(now.used(), empty.used()));
    for field in FIELDS {
        bench.figures.note(MEMORY, &subject, &format!("{field}, KB"), each(now.field(field)?, empty.field(field)?));
    }
    bench.figures.note(MEMORY, &subject, "charged to its group, KB", charged / 1024.0);
    Ok(())
}

/// Lines of meminfo in which a dyno shows.
const FIELDS: [&str; 7] = ["AnonPages", "Shmem", "KernelStack", "PageTables", "SReclaimable", "SUnreclaim", "Percpu"];

/// proc_meminfo(5), KB.
struct Memory(String);

impl Memory {
    fn now() -> Result<Self> {
        Ok(Self(fs::read_to_string("/proc/meminfo")?))
    }

    fn field(&self, name: &str) -> Result<f64> {
        let line = self.0.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        let value = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
        value.with_context(|| format!("/proc/meminfo: no {name}"))
    }

    /// All that is in use but files' caches; what files in memory take counts.
    fn used(&self) -> f64 {
        let field = |name| self.field(name).unwrap_or(f64::NAN);
        field("MemTotal") - field("MemFree") - field("Buffers") - (field("Cached") - field("Shmem"))
    }
}
