//! The tiers of a start: nothing ready, parts ready, a whole sandbox parked.

use anyhow::{Result, bail};
use dyno_runtime::{Dyno, Host, HostOptions, Sandbox};
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

impl Tier {
    /// Whether `dyno` found ready what this tier promises.
    pub fn was_ready(self, _dyno: &Dyno) -> bool {
        self == Self::Cold
    }
}

/// Opens the instance with what its tier keeps ready.
pub fn open(setup: &Setup) -> Result<Host> {
    if setup.tier != Tier::Cold {
        bail!("the runtime has no such tier yet");
    }
    Ok(Host::open_with(&setup.dir, &setup.name, &HostOptions::default())?)
}

/// Waits until what the tier keeps is there.
pub fn fill(_host: &Host, _setup: &Setup, _like: &Sandbox) -> Result<()> {
    Ok(())
}
