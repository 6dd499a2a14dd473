//! The tiers of a start: nothing ready, networks that former ones have left, parts ready, a whole sandbox parked.

use anyhow::Result;
use dyno_runtime::{Dyno, Host, HostOptions, Sandbox, Tier as Found};
use serde::{Deserialize, Serialize};

use super::Setup;

/// What stands ready when a start is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Tier {
    /// Nothing.
    Cold,
    /// Network namespaces of those that have ended, from the second start on.
    Recycled,
    /// Network namespaces, user namespaces, control groups.
    Parts,
    /// Whole sandboxes that wait for their program.
    Parked,
}

impl Tier {
    /// Whether `dyno` found ready what this tier promises.
    pub fn was_ready(self, dyno: &Dyno) -> bool {
        match self {
            Self::Cold => dyno.tier() == Found::Cold,
            Self::Recycled | Self::Parts => dyno.tier() == Found::Parts,
            Self::Parked => dyno.tier() == Found::Parked,
        }
    }
}

/// Opens the instance with what its tier keeps ready.
pub fn open(setup: &Setup) -> Result<Host> {
    let spares = if setup.tier == Tier::Parts { setup.ready } else { 0 };
    let recycled = if setup.tier == Tier::Recycled { setup.ready } else { 0 };
    Ok(Host::open_with(&setup.dir, &setup.name, &HostOptions { spares, recycled, ..HostOptions::default() })?)
}

/// Whose the starts are, where that matters.
pub fn tenant(setup: &Setup) -> Option<&str> {
    (setup.tier == Tier::Recycled).then_some("bench")
}

/// Waits until what the tier keeps for `like` is there.
pub fn fill(host: &Host, setup: &Setup, like: &Sandbox) -> Result<()> {
    match setup.tier {
        Tier::Cold | Tier::Recycled => return Ok(()),
        Tier::Parts => {}
        Tier::Parked => host.keep_parked(like, setup.ready)?,
    }
    Ok(host.wait_ready()?)
}
