//! The daemon dies at any moment of scaling.

use std::{
    hash::{BuildHasher, RandomState},
    process::Stdio,
    time::Duration,
};

use anyhow::{Result, ensure};
use dyno_tests::{Platform, until};

use super::{deployed, destroy};

const ROUNDS: u64 = 20;

pub(super) fn twenty_kills_while_scaling(platform: &Platform) -> Result<()> {
    deployed(platform, "sweep", 1)?;
    let worker = platform.seen("sweep")?["worker.1"].clone();
    // Printed, so that a run that failed can be understood; every run tries other moments.
    let seed = RandomState::new().hash_one(std::process::id());
    println!("seed {seed:#x}");
    for round in 0..ROUNDS {
        let random = seed.rotate_left(u32::try_from(round)? * 3) ^ round;
        let web = format!("web={}", random % 4);
        let mut scale = platform.dyno(&["ps:scale", &web, "-a", "sweep"]);
        let mut child = scale.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Not a wait for something: the moment of the kill is the input of this test.
        std::thread::sleep(Duration::from_millis(random >> 8 & 0x7f));
        platform.kill_daemon()?;
        child.wait()?;
        platform.start_daemon(&[])?;
    }
    platform.ok(&["ps:scale", "web=2", "-a", "sweep"])?;
    platform.wait_up("sweep")?;
    until(20, "only what is wanted is left", || Ok((platform.groups()?.len() == 3).then_some(())))?;
    let after = platform.seen("sweep")?;
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    ensure!(names == ["web.1", "web.2", "worker.1"], "{names:?}");
    ensure!(after["worker.1"] == worker, "the worker, which nobody scaled, was restarted");
    for name in ["web.1", "web.2"] {
        ensure!(after[name].init.ask(super::PORT, "/")?.trim() == name, "{name} does not answer");
    }
    destroy(platform, "sweep")
}
