//! The library, in an agent's process.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::Peer;
use crate::{
    agent::{Agent, Answer, Ballast, READY, Request, Setup, Tier},
    sample::Sample,
    stage::Stage,
};

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
        self.0
            .run(runs, idle, 1)?
            .into_iter()
            .map(|run| if run.ready { Ok(run.sample) } else { Err(anyhow!("a start found nothing ready")) })
            .collect()
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
