//! How processes live: crashes and their back-off, limits of time and memory, signals, what the router says meanwhile, logs.
//!
//! The platform of this suite is less patient than others: three seconds to boot, two to stop.

use std::process::ExitCode;

use anyhow::{Context, Result};
use dyno_tests::{Platform, run, tiny};
use serde_json::Value;

#[path = "process_model/crashing.rs"]
mod crashing;
#[path = "process_model/logging.rs"]
mod logging;
#[path = "process_model/routing.rs"]
mod routing;
#[path = "process_model/stopping.rs"]
mod stopping;

/// Deploys an app that compiles nothing, and sets its formation unless that is empty.
fn app(platform: &Platform, name: &str, procfile: &str, files: &[(&str, &str)], formation: &[&str]) -> Result<()> {
    platform.deploy(name, tiny(procfile, files)?.path())?;
    if formation.is_empty() { Ok(()) } else { scale(platform, name, formation) }
}

fn scale(platform: &Platform, name: &str, formation: &[&str]) -> Result<()> {
    let mut wish = vec!["ps:scale", "-a", name];
    wish.extend(formation);
    platform.ok(&wish).map(drop)
}

fn destroy(platform: &Platform, name: &str) -> Result<()> {
    platform.ok(&["apps:destroy", name, "--confirm", name]).map(drop)
}

/// A dyno of the listing.
fn dyno(platform: &Platform, app: &str, name: &str) -> Result<Value> {
    let list = platform.json(&["ps", "-a", app])?;
    let found = list.as_array().context("list")?.iter().find(|dyno| dyno["name"] == name).cloned();
    found.with_context(|| format!("no {name} in {list}"))
}

fn id(platform: &Platform, app: &str, name: &str) -> Result<String> {
    dyno(platform, app, name)?["id"].as_str().map(str::to_owned).context("id")
}

fn main() -> ExitCode {
    run(
        &["--boot-timeout", "3", "--stop-timeout", "2"],
        &[
            ("a_crash_is_retried_ever_later", crashing::back_off),
            ("a_web_process_that_does_not_bind_is_r10", crashing::boot_timeout),
            ("memory_over_the_limit_is_r15", crashing::memory),
            ("sigterm_reaches_every_process", stopping::to_all),
            ("a_process_that_ignores_sigterm_is_r12", stopping::deaf),
            ("ps_stop", stopping::ps_stop),
            ("the_router_says_why_there_is_no_answer", routing::codes),
            ("logs_are_filtered_and_followed", logging::filters),
            ("a_flood_costs_its_own_lines_only", logging::flood),
        ],
    )
}
