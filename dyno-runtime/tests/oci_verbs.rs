//! The command line of the OCI runtime, from outside: a container's life, what is refused in which words, hooks, many callers at once,
//! and runtimes that are killed.

#[path = "oci_verbs/criu.rs"]
mod criu;
#[path = "oci_verbs/grammar.rs"]
mod grammar;
#[path = "oci_verbs/hooks.rs"]
mod hooks;
#[path = "oci_verbs/killed.rs"]
mod killed;
#[path = "oci_verbs/life.rs"]
mod life;
#[path = "oci_verbs/many.rs"]
mod many;
mod support;
#[path = "oci_verbs/world.rs"]
mod world;

use std::process::ExitCode;

use support::Case;

const CASES: &[Case] = &[
    ("a_life", life::from_create_to_delete),
    ("what_is_refused_when", life::refusals),
    ("signals", life::signals),
    ("all_processes", life::all_processes),
    ("paused_and_resumed", life::paused),
    ("limits_and_stats", life::limits_and_stats),
    ("lists", life::lists),
    ("by_regular_expression", life::by_regex),
    ("in_the_foreground", life::run),
    ("an_end_that_nobody_collects", life::zombie),
    ("options_before_and_after_the_id", grammar::order),
    ("mistakes", grammar::mistakes),
    ("ids", grammar::ids),
    ("help_and_versions", grammar::help),
    ("one_line_for_each_failure", grammar::logs),
    ("a_directory_for_containers", grammar::roots),
    ("what_criu_is_asked_for", criu::asked_for),
    ("across_checkpoint_and_restore", criu::across),
    ("hooks_in_their_order", hooks::order),
    ("mounts_come_before_hooks", hooks::after_mounts),
    ("hooks_that_fail", hooks::failures),
    ("hooks_that_call_the_runtime", hooks::calling_back),
    ("ready_when_it_says_so", life::ready),
    ("one_id_for_many", many::create),
    ("one_start_for_many", many::start),
    ("one_delete_for_many", many::delete),
    ("all_at_once", many::storm),
    ("killed_while_creating", killed::create),
    ("killed_while_starting", killed::start),
    ("killed_while_deleting", killed::delete),
    ("killed_while_running", killed::run),
];

fn main() -> ExitCode {
    support::suite("oci-verbs", &[], CASES)
}
