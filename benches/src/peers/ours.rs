//! The library, in an agent's process.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Peer;
use crate::{
    agent::{Agent, Answer, Ballast, Request, Setup, Tier},
    sample::Sample,
    stage::Stage,
};

/// How many stand ready: a turn of a burst must not run dry.
const READY: usize = 32;

struct Ours(Agent);

/// An agent with the stage's image, in a directory of its own.
pub fn setup(stage: &Stage, tier: Tier, label: &str) -> Setup {
    let name = format!("dyno-bench-{label}-{}", std::process::id());
    Setup { dir: stage.in_memory(label), name, image: stage.image(), sha256: stage.sha256.clone(), tier, ready: READY, ballast: Ballast::default() }
}

/// Starts one for the table of latencies.
pub fn open(stage: &Stage, tier: Tier) -> Result<Box<dyn Peer>> {
    let label = format!("{tier:?}").to_lowercase();
    Ok(Box::new(Ours(Agent::start(&setup(stage, tier, &label), 0)?)))
}

impl Peer for Ours {
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>> {
        let request = Request::Run { runs, idle_us: idle.as_micros() as u64, threads: 1 };
        Ok(self.0.samples(&request)?.into_iter().map(|(sample, _)| sample).collect())
    }

    fn probe(&mut self) -> Result<Option<String>> {
        match self.0.ask(&Request::Probe)? {
            Answer::Text(text) => Ok(Some(text)),
            other => bail!("the probe was answered by {other:?}"),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}
