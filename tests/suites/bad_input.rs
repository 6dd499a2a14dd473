//! Everything that can be wrong with what people give to the platform: each gets one clear line that says what, where and
//! what to do, and the right exit status; the running release is not touched and nothing is left behind.

#[path = "bad_input/api.rs"]
mod api;
#[path = "bad_input/builds.rs"]
mod builds;
#[path = "bad_input/commands.rs"]
mod commands;
#[path = "bad_input/daemons.rs"]
mod daemons;
#[path = "bad_input/slugs.rs"]
mod slugs;
#[path = "bad_input/sources.rs"]
mod sources;

use std::{collections::BTreeMap, fs, process::ExitCode};

use anyhow::{Result, ensure};
use dyno_tests::{Platform, Seen, WEB, inline, run, until};

/// The app that runs all the while.
pub(crate) const STEADY: &str = "steady";

fn main() -> ExitCode {
    run(
        &[],
        &[
            ("command_lines", commands::command_lines),
            ("names_of_apps", commands::names_of_apps),
            ("config_vars", commands::config_vars),
            ("procfiles", commands::procfiles),
            ("requests_to_the_api", api::requests),
            ("a_body_without_end", api::huge_body),
            ("source_archives", sources::archives),
            ("a_source_that_is_not_what_it_says", sources::checksum),
            ("a_build_that_fails", builds::fails),
            ("a_build_that_runs_out_of_memory", builds::out_of_memory),
            ("a_build_that_fills_its_disk", builds::fills_its_disk),
            ("a_build_that_runs_past_its_time", builds::past_its_time),
            ("a_build_that_tries_the_network", builds::tries_the_network),
            ("a_corrupt_slug", slugs::corrupt),
            ("a_swapped_slug", slugs::swapped),
            ("a_missing_slug", slugs::missing),
            ("a_port_that_is_taken", daemons::port_taken),
            ("a_second_daemon", daemons::second),
            ("a_missing_image", daemons::missing_image),
            ("without_root", daemons::without_root),
            ("a_host_without_cgroups", daemons::without_cgroups),
        ],
    )
}

/// What must be the same after something was refused.
#[derive(Debug, PartialEq)]
struct State {
    dynos: BTreeMap<String, Seen>,
    releases: usize,
    groups: Vec<String>,
    files: Vec<String>,
}

impl State {
    fn of(platform: &Platform) -> Result<Self> {
        let dynos = platform.seen(STEADY)?;
        let releases = platform.json(&["releases", "-a", STEADY])?.as_array().map_or(0, Vec::len);
        let mut groups = platform.groups()?;
        groups.sort();
        let mut files = Vec::new();
        for folder in ["sources", "slugs", "builds"] {
            for entry in fs::read_dir(platform.state().join(folder))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                // What a build printed and asked for is kept on purpose.
                if folder != "builds" || !(name.ends_with(".log") || name.ends_with(".requests.jsonl")) {
                    files.push(format!("{folder}/{name}"));
                }
            }
        }
        files.sort();
        Ok(Self { dynos, releases, groups, files })
    }
}

/// Does `act`, and checks that the app that runs is as before and nothing of the attempt is left.
pub(crate) fn unharmed(platform: &Platform, act: impl FnOnce() -> Result<()>) -> Result<()> {
    if !platform.ok(&["apps"])?.contains(STEADY) {
        let source = inline("true", &[("web.py", WEB), ("Procfile", "web: python3 web.py\nworker: exec sleep 100000\n")])?;
        platform.deploy(STEADY, source.path())?;
        platform.ok(&["ps:scale", "web=2", "worker=1", "-a", STEADY])?;
        platform.wait_up(STEADY)?;
    }
    let before = State::of(platform)?;
    ensure!(before.dynos.len() == 3, "{before:?}");
    act()?;
    let same = || Ok((State::of(platform)? == before).then_some(()));
    if until(5, "all is as before", same).is_err() {
        anyhow::bail!("something was left or touched\nbefore: {before:#?}\nafter: {:#?}", State::of(platform)?);
    }
    let answer = platform.get(STEADY, "/")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the app that runs does not answer: {answer}");
    Ok(())
}

/// Fails with all lines, if there are any: a table is shown whole.
pub(crate) fn all_hold(failures: &[String]) -> Result<()> {
    ensure!(failures.is_empty(), "{}", failures.join("\n---\n"));
    Ok(())
}
