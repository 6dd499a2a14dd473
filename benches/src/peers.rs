//! Who is measured. A peer runs the same payload a number of times when its turn comes, and can run the probe instead.

mod command;
mod engine;
mod floor;
mod ours;

use std::time::Duration;

use anyhow::Result;

use crate::{
    agent::{TURN, Tier},
    sample::Sample,
    stage::Stage,
};

pub use self::{command::program, ours::setup};

/// One of them, ready for its turns.
pub trait Peer: Send {
    /// Runs the payload `runs` times, with a rest before each.
    ///
    /// # Errors
    /// When a run fails: a figure of something that does not work is none.
    fn turn(&mut self, runs: usize, idle: Duration) -> Result<Vec<Sample>>;

    /// What the probe says from inside; None where nothing but the payload can be run.
    ///
    /// # Errors
    /// As above.
    fn probe(&mut self) -> Result<Option<String>>;

    /// Takes down what it has set up.
    ///
    /// # Errors
    /// When something is left.
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// How a peer is opened.
pub type Open = fn(&Stage) -> Result<Box<dyn Peer>>;

/// A line of every table.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Which limits it was asked for, and what else the tables should say.
    pub limits: &'static str,
    /// Runs in one turn: what is quick needs many for a burst to be one.
    pub turn: usize,
    /// Runs out of a hundred: who takes half a second cannot have them all.
    pub share: usize,
    /// Its opening.
    pub open: Open,
}

/// Names that goals are looked up by.
pub mod name {
    /// Ours with nothing ready.
    pub const COLD: &str = "dyno, cold";
    /// Ours with parts ready.
    pub const PARTS: &str = "dyno, parts ready";
    /// Ours, parked.
    pub const PARKED: &str = "dyno, parked";
    /// Ours with network namespaces of former dynos of the same tenant.
    pub const RECYCLED: &str = "dyno, recycled networks";
    /// Our OCI runtime.
    pub const OCI: &str = "dyno-runtime run";
    /// The floor program.
    pub const FLOOR: &str = "floor";
    /// No wall at all.
    pub const VFORK: &str = "vfork + exec";
    /// The quickest of the known runtimes.
    pub const CRUN: &str = "crun run";
    /// No control group, no overlay.
    pub const BWRAP: &str = "bwrap --unshare-all";
}

const THREE: &str = "memory, pids, cpu";

/// All, in the order of the tables.
pub const ALL: [Entry; 15] = [
    Entry { name: name::VFORK, limits: "none", turn: TURN, share: 100, open: |s| floor::open(s, &["vfork"]) },
    Entry { name: name::FLOOR, limits: THREE, turn: TURN, share: 100, open: |s| floor::open(s, &["mnt", "net", "ov", "cg", "sc"]) },
    Entry { name: name::COLD, limits: THREE, turn: TURN, share: 100, open: |s| ours::open(s, Tier::Cold) },
    Entry { name: name::PARTS, limits: THREE, turn: TURN, share: 100, open: |s| ours::open(s, Tier::Parts) },
    Entry { name: name::PARKED, limits: THREE, turn: TURN, share: 100, open: |s| ours::open(s, Tier::Parked) },
    Entry { name: name::OCI, limits: THREE, turn: 5, share: 34, open: command::ours },
    Entry { name: name::CRUN, limits: THREE, turn: 5, share: 34, open: |s| command::oci(s, "crun", "plain") },
    Entry { name: "crun run, all walls", limits: THREE, turn: 5, share: 34, open: |s| command::oci(s, "crun", "walled") },
    Entry { name: "runc run", limits: THREE, turn: 5, share: 34, open: |s| command::oci(s, "runc", "plain") },
    Entry { name: "youki run", limits: THREE, turn: 5, share: 20, open: |s| command::oci(s, "youki", "plain") },
    Entry { name: name::BWRAP, limits: "none", turn: 5, share: 34, open: command::bubblewrap },
    Entry { name: "systemd-nspawn", limits: "none", turn: 2, share: 8, open: command::nspawn },
    Entry { name: "lxc-start", limits: "none", turn: 2, share: 8, open: engine::lxc },
    Entry { name: "podman run", limits: THREE, turn: 2, share: 6, open: engine::podman },
    Entry { name: "docker run", limits: THREE, turn: 2, share: 6, open: engine::docker },
];
