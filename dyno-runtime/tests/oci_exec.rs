//! `exec`, terminals, and what the runtime does in the foreground.

#[path = "oci_exec/entering.rs"]
mod entering;
#[path = "oci_exec/foreground.rs"]
mod foreground;
pub(crate) mod support;
#[path = "oci_exec/terminals.rs"]
mod terminals;
#[path = "oci_exec/world.rs"]
mod world;

use std::process::ExitCode;

use support::Case;

pub(crate) const CASES: &[Case] = &[
    ("statuses", entering::statuses),
    ("what_cannot_be_run", entering::what_cannot_be_run),
    ("behind_the_same_walls_as_the_first_process", entering::behind_the_same_walls),
    ("behind_the_same_walls_in_a_user_namespace", entering::behind_the_same_walls_in_a_user_namespace),
    ("options_change_the_process", entering::options),
    ("a_process_file", entering::process_file),
    ("inherits_no_descriptor", entering::descriptors),
    ("lets_go_of_everything_first", entering::lets_go_first),
    ("preserves_descriptors", entering::preserved),
    ("pipes_are_the_users", entering::streams_of_the_user),
    ("a_filter_with_a_listener", entering::listener),
    ("detached", entering::detached),
    ("a_group_below", entering::group_below),
    ("paused", entering::paused),
    ("killed_before_its_program", entering::killed),
    ("abandoned_before_its_program", entering::abandoned),
    ("not_in_a_stopped_container", entering::stopped),
    ("in_a_container_that_waits_for_start", entering::created),
    ("a_terminal_of_its_own", terminals::of_its_own),
    ("the_last_output_is_not_lost", terminals::last_output),
    ("somebody_else_holds_the_terminal", terminals::held),
    ("our_terminal_is_as_before", terminals::restored),
    ("console_socket", terminals::socket),
    ("console_of_the_first_process", terminals::first),
    ("no_symlink_for_a_console", terminals::symlinks),
    ("in_a_user_namespace", terminals::user_namespace),
    ("without_privileges", terminals::without_privileges),
    ("nobody_reads", terminals::nobody_reads),
    ("signals_are_passed_on", foreground::signals),
    ("two_words_of_one_child", foreground::two_words_of_one_child),
    ("whatever_the_caller_says_of_sigchld", foreground::sigchld),
    ("orphans_are_collected", foreground::orphans),
];

fn main() -> ExitCode {
    support::suite("oci-exec", &["setpriv", "strace"], CASES)
}
