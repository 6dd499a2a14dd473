//! One-off dynos: attached by pipes or a terminal, detached, and what is left when a client goes away.

use std::process::ExitCode;

use anyhow::{Context, Result};
use dyno_tests::{Platform, run, tiny};

#[path = "one_off/attached.rs"]
mod attached;
#[path = "one_off/detached.rs"]
mod detached;
#[path = "one_off/terminals.rs"]
mod terminals;

/// The app of all cases; it has nothing that runs by itself.
const APP: &str = "desk";

/// Deploys [`APP`], if no case before has.
fn ready(platform: &Platform) -> Result<()> {
    if platform.try_dyno(&["apps:info", APP])?.status == 0 {
        return Ok(());
    }
    let source = tiny("hello: echo hello from $DYNO\nidle: exec sleep 1000\n", &[("words.txt", "one two three\n")])?;
    platform.deploy(APP, source.path()).map(drop)
}

/// N of the `run.N` that a command named when it began.
fn number(stderr: &str) -> Result<u32> {
    let after = stderr.split_once(", run.").map(|(_, after)| after).with_context(|| stderr.to_owned())?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn main() -> ExitCode {
    run(
        &[],
        &[
            ("output_and_statuses", attached::output_and_statuses),
            ("a_command_that_ends_at_once", attached::ends_at_once),
            ("input_comes_back_unchanged", attached::input),
            ("variables_sizes_and_process_types", attached::choices),
            ("an_interrupt_without_a_terminal", attached::interrupt),
            ("a_client_that_is_killed_hangs_up", attached::killed),
            ("detached_waited_for_and_numbered", detached::detached),
            ("time_to_live", detached::time_to_live),
            ("a_shell_in_a_terminal", terminals::shell),
            ("a_window_that_changes", terminals::resize),
            ("a_terminal_that_is_closed_hangs_up", terminals::closed),
        ],
    )
}
