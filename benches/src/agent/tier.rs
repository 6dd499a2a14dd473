//! The tiers of a start: nothing ready, parts ready, a whole sandbox parked.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dyno_runtime::{Dyno, Host, HostOptions, Sandbox, Tier as Found};
use serde::{Deserialize, Serialize};

use super::Setup;

/// What stands ready when a start is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Nothing.
    Cold,
    /// Network namespaces, user namespaces, control groups.
    Parts,
    /// Whole sandboxes that wait for their program.
    Parked,
}

/// Parts tell nobody when they are ready; each takes about a millisecond to make.
const STOCKING: Duration = Duration::from_millis(200);

/// As long as it may take until enough are parked.
const PATIENCE: Duration = Duration::from_secs(30);

impl Tier {
    /// Whether `dyno` found ready what this tier promises.
    pub fn was_ready(self, dyno: &Dyno) -> bool {
        match self {
            Self::Cold => dyno.tier() == Found::Cold,
            Self::Parts => dyno.tier() == Found::Parts,
            Self::Parked => dyno.tier() == Found::Parked,
        }
    }
}

/// Opens the instance with what its tier keeps ready.
pub fn open(setup: &Setup) -> Result<Host> {
    let spares = if setup.tier == Tier::Parts { setup.ready } else { 0 };
    Ok(Host::open_with(&setup.dir, &setup.name, &HostOptions { spares, ..HostOptions::default() })?)
}

/// Waits until what the tier keeps for `like` is there.
pub fn fill(host: &Host, setup: &Setup, like: &Sandbox) -> Result<()> {
    match setup.tier {
        Tier::Cold => {}
        Tier::Parts => sleep(STOCKING),
        Tier::Parked => {
            let from = Instant::now();
            host.keep_parked(like, setup.ready)?;
            while host.parked(like) < setup.ready {
                ensure!(from.elapsed() < PATIENCE, "{} of {} were parked in {} s", host.parked(like), setup.ready, PATIENCE.as_secs());
                sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(())
}
